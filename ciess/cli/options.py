"""How options are read: positions, sections, and the settings on which the defaults of others depend."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, get_args

import tyro

from ciess.config.fit import MethodName
from ciess.config.models import MODEL_CONFIGS
from ciess.config.short_fit import Preset

Flat = tyro.conf.arg(name="")


DataPath = Annotated[str, tyro.conf.Positional]


def _given(arguments: Sequence[str], option: str) -> str | None:
    """The last value given for an option, None without one."""
    found = None
    for argument, following in zip(arguments, [*arguments, None][1:], strict=True):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == option:
            found = value if equals else following
    return found


def _methods(arguments: Sequence[str]) -> dict[str, Any]:
    """The methods given, on which the default of --sparsity depends; what is no method is refused later."""
    found: list[str] = []
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--method":
            rest = [value] if equals else list(arguments[number + 1 :])
            found = list(itertools.takewhile(lambda word: not word.startswith("-"), rest))
    known = [word for word in found if word in get_args(MethodName)]
    return {"method": known} if known and known == found else {}


def _defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """Settings on which the defaults of others depend, so that --help and the defaults are the ones tuned for them."""
    backbone, preset = _given(arguments, "--backbone"), _given(arguments, "--short-fit.preset")
    short_fit: dict[str, Any] = {"preset": preset} if preset in get_args(Preset) else {}
    lengths = [unit for unit in ("epochs", "batches") if _given(arguments, f"--short-fit.{unit}") is not None]
    if len(lengths) == 1:
        # A length that is given takes the place of the preset's, in whichever unit; the number itself follows.
        short_fit[lengths[0]] = 1
    return {"backbone": backbone if backbone in MODEL_CONFIGS else "lightgcn", "short_fit": short_fit}
