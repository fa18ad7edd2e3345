"""What a compression method hands to the shared retraining: a mask, where training starts, what to tell the reader."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from torch import Tensor

from ciess.masks.mask import Mask
from ciess.storage.columns import SEARCHED
from ciess.training.starts.start import Start


@dataclass(frozen=True, eq=False)
class TableSpec:
    """One table to train.

    Attributes:
        method: name of the method that made it.
        mask: which entries exist.
        seed: of the training, and of whatever the method draws.
        target_sparsity: the budget it was made for, None where there was none.
        initial: weights of the method's own to start from (`FitRequest`).
        start: where training starts, None where that is still to be chosen.
        flag: what the reader must know, such as `forced`.
        variant: tells tables of one method apart, such as `c2`.
        search: where a search found the mask, for card and results (names of `RESULTS` go into its columns).
        decoder: of a chain after the table (`FitRequest`).
        role: of a table of a search, CHOSEN or SEARCHED.
    """

    method: str
    mask: Mask
    seed: int
    target_sparsity: Fraction | None = None
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    flag: str | None = None
    variant: str = ""
    search: Mapping[str, Any] = field(default_factory=dict)
    decoder: Mapping[str, Tensor] = field(default_factory=dict)
    role: str | None = None
    start: Start | None = None

    @property
    def name(self) -> str:
        """Folder below tables/: method, sparsity in percent, role, variant and seed, such as `equal-c90-s0`."""
        percent = "" if self.target_sparsity is None else f"c{float(100 * self.target_sparsity):g}"
        role = SEARCHED if self.role == SEARCHED else ""
        return "-".join(part for part in (self.method, percent, role, self.variant, f"s{self.seed}") if part)

    @property
    def title(self) -> str:
        """The name, and the flag where there is one, for a reader."""
        return self.name if self.flag is None else f"{self.name} ({self.flag})"
