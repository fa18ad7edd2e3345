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

REACH = 3.0
"""Deviations beyond which a trait counts no more."""

TINY = 1e-6
"""Deviation of a trait within a bin that is none but rounding."""

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


def standardised(traits: npt.NDArray[np.float32], bins: npt.NDArray[np.int64]) -> Vector:
    """Traits less their mean within the row's bin, over their deviation there, within +-REACH; 0 where all are equal.

    Args:
        traits: float32[m, t].
        bins: of each row, int64[m].

    Returns:
        float64[m, t].
    """
    found = traits.astype(np.float64)
    count = np.maximum(np.bincount(bins), 1) if len(bins) else np.ones(1)
    for column in found.T:
        column -= (np.bincount(bins, weights=column, minlength=len(count)) / count)[bins] if len(bins) else 0.0
        spread = np.sqrt(np.bincount(bins, weights=column**2, minlength=len(count)) / count)
        column /= np.where(spread > TINY, spread, np.inf)[bins] if len(bins) else 1.0
    return np.clip(found, -REACH, REACH)


class Kinds:
    """From vectors around a rule to sizes and starts.

    Coordinates, each 0 at the rule: the logarithm of the weight of every bin of items, and of users where they have
    rows; what each trait of a row moves this logarithm by; the items' share, clipped to 0..1, so that a side may have
    none; the numbers of the start.
    """

    def __init__(
        self,
        degrees: npt.NDArray[np.int64],
        n_users: int,
        backbone: str,
        max_size: int,
        bounds: SizeBounds,
        config: KindsConfig,
        traits: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """See the rows of a data set.

        Args:
            degrees: training pairs of each row, int64[n], users first.
            n_users: number of users.
            backbone: whose rows they are.
            max_size: columns of the full table, d_max.
            bounds: of the sizes.
            config: number of bins, and their deviation.
            traits: of every row, float32[n, t]; none by default.
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
        known = np.empty((len(degrees), 0), np.float32) if traits is None else traits
        self._item_traits = standardised(known[n_users:], self.item_bins)
        self._user_traits = standardised(known[:n_users], self.user_bins)
        self.trait_count = known.shape[1] * (2 if self.with_users else 1)

    @property
    def names(self) -> list[str]:
        """Of the coordinates."""
        weights = [f"items {bin_}" for bin_ in range(self._items)] + [f"users {bin_}" for bin_ in range(self._users)]
        sides = ("items", "users") if self.with_users else ("items",)
        traits = [f"{side}, trait {trait}" for side in sides for trait in range(self._item_traits.shape[1])]
        share = ["item share"] if self.with_users else []
        return [*weights, *traits, *share, *self._start_names]

    @property
    def of_traits(self) -> list[int]:
        """Places of the coordinates of traits."""
        first = self._items + self._users
        return list(range(first, first + self.trait_count))

    @property
    def deviations(self) -> Vector:
        """What a search begins with, a coordinate: 1 but for weights and traits."""
        count = self._items + self._users
        own = [self.config.deviation] * count + [self.config.trait_deviation] * self.trait_count
        return np.array(own + [1.0] * (len(self.names) - len(own)))

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
        traits = vector[self.of_traits]
        rest = list(vector[self._items + self._users + self.trait_count :])
        share = rule.item_share
        if self.with_users:
            share = float(np.clip(share + SHARE_STEP * rest.pop(0), 0.0, 1.0))
        wanted = np.maximum(self.degrees, 1).astype(np.float64) ** rule.popularity
        own = self._item_traits.shape[1]
        wanted[self.n_users :] *= np.exp(items[self.item_bins] + self._item_traits @ traits[:own])
        if self.with_users:
            wanted[: self.n_users] *= np.exp(users[self.user_bins] + self._user_traits @ traits[own:])
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
