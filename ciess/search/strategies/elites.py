"""The best mask of each target so far: where episodes of agents may begin, and what actors are held to."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ciess.search.strategies.strategy import Arrays, Result
from ciess.training.starts.start import Start


@dataclass(frozen=True, eq=False)
class Elite:
    """A mask and what its fit found.

    Attributes:
        sizes: int16[n].
        ratios: Eq. 7 on the pairs searched by, float32[n].
        quality: mean of Eq. 8 on these.
        start: of its fit.
    """

    sizes: npt.NDArray[np.int16]
    ratios: npt.NDArray[np.float32]
    quality: float
    start: Start | None


class Elites:
    """The best of what was told, by the quality on the pairs searched by, target by target."""

    def __init__(self) -> None:
        self._best: dict[int, Elite] = {}

    def __getitem__(self, label: int) -> Elite | None:
        return self._best.get(label)

    def see(self, label: int, result: Result) -> None:
        """Take a result of the target at this position, where it is better than all before."""
        best, candidate, proposal = self._best.get(label), result.candidate, result.plan.proposal
        if best is None or candidate.quality > best.quality:
            self._best[label] = Elite(proposal.sizes, result.ratios, candidate.quality, proposal.start)

    def state(self) -> tuple[Arrays, list[dict[str, Any]]]:
        """Arrays by dotted name, and what JSON can hold, an entry a target."""
        arrays: Arrays = {}
        values: list[dict[str, Any]] = []
        for label, best in sorted(self._best.items()):
            arrays |= {f"elites.{label}.sizes": best.sizes, f"elites.{label}.ratios": best.ratios}
            start = None if best.start is None else best.start.described()
            values.append({"label": label, "quality": best.quality, "start": start})
        return arrays, values

    def load(self, arrays: Arrays, values: list[dict[str, Any]]) -> None:
        """Put a state back in place; other names are left alone."""
        self._best = {}
        for value in values:
            label, start = value["label"], value["start"]
            sizes, ratios = (arrays[f"elites.{label}.{name}"].copy() for name in ("sizes", "ratios"))
            self._best[label] = Elite(sizes, ratios, value["quality"], None if start is None else Start(**start))
