"""The command line `ciess`."""

from collections.abc import Callable, Sequence

import tyro

from ciess.cli.commands import COMMANDS, CONFIGS
from ciess.cli.options import Said
from ciess.cli.program import later, run_program


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; `arguments` defaults to those of the process."""
    again = "the same command goes on from here with --resume (`ciess retrain` without it)."
    run_program("ciess", _parse, again, arguments)


def _parse(arguments: list[str]) -> Callable[[], None]:
    said = Said.by(arguments)
    defaults = {name: {"config": config(said)} for name, config in CONFIGS.items()}
    ready: Callable[[], None] = tyro.extras.subcommand_cli_from_dict(
        {name: later(command, **defaults.get(name, {})) for name, command in COMMANDS.items()},
        prog="ciess",
        description="Choose how many embedding dimensions each user and item deserves.",
        args=arguments,
        config=(tyro.conf.AvoidSubcommands,),
    )
    return ready
