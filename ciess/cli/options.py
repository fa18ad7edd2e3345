"""How options are read: positions, sections, and what is said before the parser runs."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import tyro

from ciess.config.data import DataConfig
from ciess.config.fit import MethodName
from ciess.config.models import MODEL_CONFIGS
from ciess.config.short_fit import Preset

Flat = tyro.conf.arg(name="")
"""Settings whose options carry no name of a section in front."""

DataPath = Annotated[str, tyro.conf.Positional]
"""Where the interactions are."""

READING = DataConfig()
"""How data is read where nothing is said of it."""


@dataclass(frozen=True)
class Said:
    """What a command line says, on which the defaults of other options depend; what is wrong is refused later.

    Attributes:
        options: words after each option, its last occurrence alone.
    """

    options: Mapping[str, Sequence[str]]

    @classmethod
    def by(cls, arguments: Sequence[str]) -> "Said":
        """Read the arguments of a command, once."""
        options: dict[str, list[str]] = {}
        words: list[str] = []
        for argument in arguments:
            name, equals, value = argument.partition("=")
            if name.startswith("-"):
                words = options[name.replace("_", "-")] = [value] if equals else []
            else:
                words.append(argument)
        return cls(options)

    @property
    def backbone(self) -> str:
        """The backbone, lightgcn without one."""
        name = self._first("--backbone")
        return name if name in MODEL_CONFIGS else "lightgcn"

    @property
    def methods(self) -> dict[str, Any]:
        """`method`, where methods are named and all of them are."""
        found = list(self.options.get("--method", ()))
        return {"method": found} if found and set(found) <= set(get_args(MethodName)) else {}

    @property
    def search_preset(self) -> dict[str, Any]:
        """`preset` of a search, where it is one."""
        preset = self._first("--preset")
        return {"preset": preset} if preset in ("default", "paper") else {}

    @property
    def budgeted(self) -> dict[str, Any]:
        """Sparsities of a search, and the settings on which the others that go with them depend."""
        shares = [share for word in self.options.get("--sparsity", ()) if (share := _number(word)) and 0 < share < 1]
        if not shares or len(shares) < len(self.options["--sparsity"]):
            return {}
        found: dict[str, Any] = {"sparsity": shares, "halves": "--no-halves" not in self.options}
        if (strategy := self._first("--strategy")) in ("kinds", "td3", "random"):
            found["strategy"] = strategy
        for name in ("fits", "iterations", "lanes"):
            if (count := _number(self._first(f"--{name}"))) and count == int(count) > 0:
                found[name] = int(count)
        if (count := _number(self._first("--kinds.population"))) and count == int(count) > 0:
            found["kinds"] = {"population": int(count)}
        return found

    @property
    def short_fit(self) -> dict[str, Any]:
        """Preset, and the unit of a length that takes the place of the preset's; the number itself follows."""
        preset = self._first("--short-fit.preset")
        lengths = [unit for unit in ("epochs", "batches") if self._first(f"--short-fit.{unit}") is not None]
        chosen: dict[str, Any] = {"preset": preset} if preset in get_args(Preset) else {}
        return chosen | ({lengths[0]: 1} if len(lengths) == 1 else {})

    def _first(self, option: str) -> str | None:
        return next(iter(self.options.get(option, ())), None)


def _number(word: str | None) -> float | None:
    try:
        return None if word is None else float(word)
    except ValueError:
        return None


def read_noted(path: str, options: DataConfig) -> Any:
    """The interactions that a command is given; what reading has to say of them goes to stderr.

    Args:
        path: as `read_source` takes it.
        options: how to read it.

    Returns:
        the interactions.
    """
    from ciess.data.source import read_source

    interactions = read_source(path, options)
    for note in interactions.notes:
        print(note, file=sys.stderr)
    return interactions
