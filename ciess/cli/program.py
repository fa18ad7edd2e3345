"""The manners of a command that other programs can call.

Exit codes: 0 done; 2 the input or the options are wrong (one paragraph on stderr); 1 the run failed; 130 interrupted.
"""

import contextlib
import functools
import inspect
import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.config.search import SearchConfig
from ciess.errors import CiessError, InputError

Parse = Callable[[list[str]], Callable[[], None]]
"""From arguments to a command that is ready to run."""

READING_OPTIONS = "|".join(name for name in DataConfig.model_fields if "_" in name)
"""Names of settings that messages of the reader say as Python has them."""


def _section(title: str) -> str:
    """What stands before the option names of settings inside others: `training.` for TrainingConfig."""
    fields = {name: field for config in (SearchConfig, FitConfig) for name, field in config.model_fields.items()}
    return next(
        (f"{name}." for name, field in fields.items() if re.search(rf"\b{title}\b", repr(field.annotation))), ""
    )


def _explain(error: ValidationError) -> str:
    """A pydantic error as one paragraph."""
    found = []
    for item in error.errors():
        names = [part for part in item["loc"] if isinstance(part, str)]
        option = f"--{_section(error.title)}{'.'.join(names)}".replace("_", "-")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "too_short" and len(error.errors()) > 1:
            continue  # the list is only empty because its values were refused, which is said already
        if item["type"] == "less_than" and names and names[-1] in ("sparsity", "sparsities", "targets"):
            message += "; it is a share, such as 0.9 for 90 %"
        # What settings say of each other names what was found itself.
        found.append(f"{option}: found {item['input']!r}; {message}" if names else message)
    return "The options are not valid. " + ". ".join(found) + ". See --help for what each option takes."


def later(command: Callable[..., None], **defaults: Any) -> Callable[..., Callable[[], None]]:
    """A command that is only made ready when it is called: its options are then known to be valid.

    Args:
        command: its parameters are the options.
        defaults: of parameters, in the place of its own.

    Returns:
        a function of the same parameters that gives the command, ready to run.
    """

    @functools.wraps(command)
    def call(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(command, *args, **kwargs)

    signature = inspect.signature(command)
    parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values()]
    vars(call)["__signature__"] = signature.replace(parameters=parameters)
    return call


def _parsed(parse: Parse, arguments: list[str]) -> Callable[[], None]:
    """The command asked for, ready to run. Raises ValidationError, InputError, SystemExit for --help."""
    nowhere = io.StringIO()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            return parse(arguments)
    except SystemExit as end:
        cause: BaseException | None = end
        while cause is not None:
            if isinstance(cause, ValidationError):
                raise cause from None
            cause = cause.__context__
        if end.code:
            raise InputError(_unboxed(nowhere.getvalue())) from None
    return parse(arguments)


def _unboxed(text: str) -> str:
    """The words of a box that the parser drew, as one paragraph."""
    title, *rest = re.sub(r"[╭╮╰╯│─+| ]*\n[╭╮╰╯│─+| ]*|-{10}", "\n", text).strip("╭╮╰╯│─+|- \n").split("\n")
    return f"{title.strip('─- ')}: {' '.join(line for line in rest if line.strip('-'))}."


def _with_flags(text: str) -> str:
    """A message with the reading options as they are typed: `--min-rating 4` for `min_rating=4`."""
    return re.sub(
        rf"(?<![\w.])({READING_OPTIONS})(=True)?\b(=?)",
        lambda match: "--" + match[1].replace("_", "-") + (" " if match[3] else ""),
        text,
    )


def run_program(name: str, parse: Parse, again: str, arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments, by default those of the process, and run what they ask for.

    Args:
        name: of the program.
        parse: from arguments to a command that is ready to run.
        again: what to say of going on after an interruption.
        arguments: words after the program's name, by default those of the process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    status: Literal[0, 1, 2, 130] = 0
    try:
        _parsed(parse, arguments)()
    except (CiessError, ValidationError) as error:
        if debug:
            raise
        text = _explain(error) if isinstance(error, ValidationError) else _with_flags(str(error))
        print(f"{name}: {text}", file=sys.stderr)
        status = 2 if isinstance(error, InputError | ValidationError) else 1
    except KeyboardInterrupt:
        if debug:
            raise
        print(f"\n{name}: interrupted; {again}", file=sys.stderr)
        status = 130
    if status:
        sys.exit(status)
