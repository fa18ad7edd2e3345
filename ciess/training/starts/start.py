"""Where a training starts, by name and numbers, and which starts a backbone allows."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ciess.config.models import BackboneName

Side = Literal["items", "users", "both"]

SIDES: dict[BackboneName, tuple[Side, ...]] = {
    "lightgcn": ("items", "both", "users"),
    "ngcf": ("both",),
    "ncf": ("both",),
    "items": ("items",),
}
"""Backbone -> sides whose axes a spectral start may take."""


@dataclass(frozen=True)
class Start:
    """A start and its numbers.

    Attributes:
        name: `fresh`, `cut`, `projected` or `spectral`.
        side: of a spectral start: rows of the axes' own side, the other side's by propagation, or both.
        exponent: x of a spectral start: axes of Du^-1/2 R Di^-(1/2 - x), and rows times their degrees^x.
        power: p of a spectral start: rows times the singular values^p; with both sides the users' take the 1 - p.
        item_exponent: a of the backbone `items`.
        item_weight: how much items' rows count in the least squares of a projected start.
    """

    name: Literal["fresh", "cut", "projected", "spectral"]
    side: Side | None = None
    exponent: float = 0.0
    power: float = 0.0
    item_exponent: float = 0.0
    item_weight: float = 1.0

    def described(self) -> dict[str, Any]:
        """As JSON, without numbers that the start does not have."""
        return {name: value for name, value in asdict(self).items() if value != getattr(FRESH, name) or name == "name"}


FRESH = Start("fresh")
