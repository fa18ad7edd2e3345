"""Kinds of rows, and sizes by kind: a vector of numbers makes the sizes of all rows and the numbers of a start."""

import math

import numpy as np
import numpy.typing as npt

from ciess import masks
from ciess.config.kinds import KindsConfig
from ciess.config.models import WITHOUT_USERS
from ciess.masks.bounds import SizeBounds
from ciess.masks.mask import PrefixMask
from ciess.masks.popularity import shared_out
from ciess.training.starts.rule import Rule
from ciess.training.starts.start import Start

Vector = npt.NDArray[np.float64]

HEAD = 8
"""Rows of the first bin; each bin holds those of the ones before it once more, and a share."""

SHARE_STEP, EXPONENT_STEP, POWER_STEP, ITEM_EXPONENT_STEP = 0.3, 0.1, 0.25, 0.2
"""What a deviation of 1 in a coordinate is worth: of the items' share, and of the numbers of a start."""

GRID = 0.05
"""Exponents are rounded to it: every other one asks for axes of its own."""


def bin_count(rows: int) -> int:
    """Bins of a side by its number of rows: 12 for 4,000."""
    return max(1, min(16, round(1.45 * math.log2(max(2, rows / HEAD)) - 1)))


def bins_of(degrees: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Bin of each row by popularity rank, 0 for the most popular.

    Edges grow geometrically from HEAD rows, or from as many as fit where there are few rows.

    Args:
        degrees: int64[m], training pairs of each row.
        count: most bins.

    Returns:
        int64[m]; fewer bins where there are fewer rows.
    """
    rows = len(degrees)
    if not rows:
        return np.empty(0, np.int64)
    count = min(count, rows)
    first = min(HEAD, max(1, rows // count))
    edges = np.unique(np.round(np.geomspace(first, rows, count)).astype(np.int64)) if count > 1 else np.array([rows])
    rank = np.empty(rows, np.int64)
    rank[np.argsort(-degrees, kind="stable")] = np.arange(rows)
    found: npt.NDArray[np.int64] = np.searchsorted(edges, rank, side="right").astype(np.int64)
    return found


class Kinds:
    """From vectors around a rule to sizes and starts.

    Coordinates, each 0 at the rule: the logarithm of the weight of every bin of items, and of users where they have
    rows; the items' share, clipped to 0..1, so that a side may have none; the numbers of the start.
    """

    def __init__(
        self,
        degrees: npt.NDArray[np.int64],
        n_users: int,
        backbone: str,
        max_size: int,
        bounds: SizeBounds,
        config: KindsConfig,
    ) -> None:
        """See the rows of a data set.

        Args:
            degrees: training pairs of each row, int64[n], users first.
            n_users: number of users.
            backbone: whose rows they are.
            max_size: columns of the full table, d_max.
            bounds: of the sizes.
            config: number of bins, and their deviation.
        """
        self.degrees, self.n_users, self.backbone = degrees, n_users, backbone
        self.max_size, self.bounds, self.config = max_size, bounds, config
        n_items = len(degrees) - n_users
        self.item_bins = bins_of(degrees[n_users:], config.item_bins or bin_count(n_items))
        self.with_users = backbone not in WITHOUT_USERS
        count = config.user_bins or max(1, bin_count(n_users) // 2)
        self.user_bins = bins_of(degrees[:n_users], count if self.with_users else 1)
        self._items = int(self.item_bins.max(initial=-1)) + 1
        self._users = int(self.user_bins.max(initial=-1)) + 1 if self.with_users else 0

    @property
    def names(self) -> list[str]:
        """Of the coordinates."""
        weights = [f"items {bin_}" for bin_ in range(self._items)] + [f"users {bin_}" for bin_ in range(self._users)]
        share = ["item share"] if self.with_users else []
        return [*weights, *share, *self._start_names]

    @property
    def deviations(self) -> Vector:
        """What a search begins with, a coordinate: 1 but for the weights."""
        count = self._items + self._users
        return np.array([self.config.deviation] * count + [1.0] * (len(self.names) - count))

    @property
    def _start_names(self) -> list[str]:
        return ["exponent", "power", *(["item exponent"] if self.backbone == "items" else [])]

    def decode(self, vector: Vector, rule: Rule, sparsity: float) -> tuple[PrefixMask, Start | None]:
        """Sizes and start of a vector.

        Args:
            vector: float64[len(names)].
            rule: where 0 is.
            sparsity: the budget.

        Returns:
            a mask that uses the budget to the last parameter, and the start of its short fit.
        """
        items, users = vector[: self._items], vector[self._items : self._items + self._users]
        rest = list(vector[self._items + self._users :])
        share = rule.item_share
        if self.with_users:
            share = float(np.clip(share + SHARE_STEP * rest.pop(0), 0.0, 1.0))
        wanted = np.maximum(self.degrees, 1).astype(np.float64) ** rule.popularity
        wanted[self.n_users :] *= np.exp(items)[self.item_bins]
        if self.with_users:
            wanted[: self.n_users] *= np.exp(users)[self.user_bins]
        wanted = shared_out(wanted, self.n_users, share, self.bounds.low)
        mask = masks.project(wanted, self.max_size, sparsity, self.degrees, self.bounds)
        return mask, None if rule.start is None else self._start(rule.start, rest)

    def _start(self, start: Start, numbers: list[float]) -> Start:
        exponent, power, *item_exponent = numbers
        shift = ITEM_EXPONENT_STEP * item_exponent[0] if item_exponent else 0.0
        return Start(
            start.name,
            start.side,
            round(round(float(np.clip(start.exponent + EXPONENT_STEP * exponent, -0.2, 0.6)) / GRID) * GRID, 4),
            float(np.clip(start.power + POWER_STEP * power, -0.25, 1.5)),
            float(np.clip(start.item_exponent + shift, -0.5, 1.0)),
        )
