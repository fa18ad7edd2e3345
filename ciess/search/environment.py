"""The environment of the search: states, quality ratios and rewards of users and items (section 2.2)."""

import numpy as np
import numpy.typing as npt

from ciess.data import Pairs
from ciess.evaluation.metrics import item_quality
from ciess.masks.bounds import SizeBounds

Floats = npt.NDArray[np.float32]

FLOOR = 1e-5
"""Smallest denominator of Eq. 7 under the published code's rule."""


class Environment:
    """What the agents see of a data set. Rows are users first, then items; the two sides are normalised apart."""

    def __init__(
        self,
        train: Pairs,
        n_users: int,
        n_items: int,
        max_size: int,
        reference: Floats,
        counted: npt.NDArray[np.bool_],
        zero_reference: str = "one",
        bounds: SizeBounds | None = None,
        traits: Floats | None = None,
        rich: bool = False,
    ) -> None:
        """See states and rewards of a data set.

        Args:
            train: pairs that give popularity (Eq. 6) and the users of an item (Eq. 9).
            n_users: number of users.
            n_items: number of items.
            max_size: columns of the full table, d_max.
            reference: eval(e_n | E) of Eq. 7, float32[n].
            counted: bool[n], rows it was measured for.
            zero_reference: Eq. 7 where the reference is 0, `one` or `floor`.
            bounds: of the sizes of n rows, the same for all of a side; by default 1 to max_size.
            traits: what else is known of the rows, float32[n, t] in [0, 1]; nothing by default.
            rich: whether they are further columns of a state.
        """
        self.train, self.n_users, self.n_items, self.max_size = train, n_users, n_items, max_size
        self.n = n_users + n_items
        self.bounds = SizeBounds.uniform(self.n, 1, max_size) if bounds is None else bounds
        self.reference, self.zero_reference = np.asarray(reference, dtype=np.float32), zero_reference
        self.counted = counted[:n_users]
        self.traits = np.empty((self.n, 0), np.float32) if traits is None else traits
        self.rich = rich
        self.degrees = train.degrees(n_users, n_items)
        users, items = self.degrees[:n_users], self.degrees[n_users:]
        self.popularity = np.concatenate([_scaled(users), _scaled(items)])
        # An item without a training user has no quality of its own (Eq. 9), so nothing can be learned from it.
        self.measured = np.concatenate([np.ones(n_users, np.bool_), items > 0])

    @property
    def sides(self) -> dict[str, slice]:
        """Rows of `users` and `items`."""
        return {"users": slice(0, self.n_users), "items": slice(self.n_users, self.n)}

    @property
    def learnable(self) -> npt.NDArray[np.bool_]:
        """bool[n]: rows that an agent can learn from, as they have a quality and a choice of sizes."""
        return self.measured & self.bounds.free

    def sizes_of(self, side: str) -> tuple[int, int]:
        """Smallest and largest size of a side's rows.

        Args:
            side: `users` or `items`.

        Returns:
            the two sizes.
        """
        rows = self.sides[side]
        low, high = self.bounds.low[rows], self.bounds.high[rows]
        return (int(low[0]), int(high[0])) if len(low) else (0, 0)

    @property
    def zeros(self) -> dict[str, int]:
        """Rows a side for which the reference scores 0, so that Eq. 7 has no denominator."""
        return {side: int((self.reference[rows] == 0).sum()) for side, rows in self.sides.items()}

    def quality(self, user_quality: Floats) -> Floats:
        """Qualities of users and items (Eq. 8 and 9).

        Args:
            user_quality: Eq. 8, float32[n_users].

        Returns:
            float32[n], users first.
        """
        items, _ = item_quality(user_quality, self.train, self.n_items)
        return np.concatenate([np.asarray(user_quality, dtype=np.float32), items])

    def quality_ratio(self, quality: Floats) -> Floats:
        """q_n of Eq. 7.

        An item without a training user has the ratio 1. So has an entity for which the reference scores 0: nothing
        can be lost; with zero_reference `floor` its denominator is 1e-5 instead, which makes 0/0 a 0 and x/0 a 1.

        Args:
            quality: eval(e_n | E * M), float32[n].

        Returns:
            float32[n] in [0, 1].
        """
        least = FLOOR if self.zero_reference == "floor" else 0.0
        denominator = np.maximum(self.reference, np.float32(least))
        known = self.measured & (denominator > 0)
        ratio = np.ones(self.n, dtype=np.float32)
        np.divide(quality, denominator, out=ratio, where=known)
        return np.minimum(ratio, np.float32(1))

    def state(
        self,
        rows: npt.NDArray[np.int64] | slice,
        sizes: npt.NDArray[np.int16],
        ratios: Floats,
        targets: Floats | float | None = None,
    ) -> Floats:
        """s_n of Eq. 6: popularity, size and quality ratio of b rows.

        Args:
            rows: int64[b], or a slice.
            sizes: int16[b].
            ratios: quality ratios, float32[b].
            targets: sparsities to meet, float32[b] or one, a fourth column.

        Returns:
            float32[b, 3] in [0, 1], or float32[b, 4]; where states are rich, the row's traits follow.
        """
        popularity = self.popularity[rows]
        low, reach = self.bounds.low[rows], np.maximum(1, self.bounds.high[rows] - self.bounds.low[rows])
        scaled = (sizes - low).astype(np.float32) / reach.astype(np.float32)
        columns = [popularity, scaled, ratios]
        if targets is not None:
            columns.append(np.broadcast_to(np.asarray(targets, dtype=np.float32), popularity.shape))
        found = np.stack(columns, axis=1).astype(np.float32)
        return np.concatenate([found, self.traits[rows]], axis=1) if self.rich else found

    def reward(self, quality: Floats, sizes: npt.NDArray[np.int16], memory_weight: Floats | float) -> Floats:
        """r_n of Eq. 10.

        Args:
            quality: the quality ratio (or raw quality), float32[b].
            sizes: int16[b].
            memory_weight: lambda, float32[b] or one.

        Returns:
            float32[b].
        """
        cost = np.square(sizes.astype(np.float32) / self.max_size)
        return (quality - np.asarray(memory_weight, dtype=np.float32) * cost).astype(np.float32)


def _scaled(degrees: npt.NDArray[np.int64]) -> Floats:
    """Popularity of Eq. 6 in [0, 1]; 0 for everyone where all are equally popular."""
    if not len(degrees):
        return np.empty(0, np.float32)
    low, high = int(degrees.min()), int(degrees.max())
    return ((degrees - low) / max(1, high - low)).astype(np.float32)
