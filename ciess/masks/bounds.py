"""How small and how large each row may be."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ciess.config.models import WITHOUT_USERS
from ciess.config.recommender import RecommenderConfig

Sizes = npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class SizeBounds:
    """Smallest and largest size of each row.

    Attributes:
        low: int16[n].
        high: int16[n], nowhere below `low`.
    """

    low: Sizes
    high: Sizes

    @classmethod
    def uniform(cls, n: int, low: int, high: int) -> "SizeBounds":
        """The same for all of n rows."""
        return cls(np.full(n, low, np.int16), np.full(n, high, np.int16))

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.low)

    @property
    def least(self) -> int:
        """Entries of the smallest table."""
        return int(self.low.sum(dtype=np.int64))

    @property
    def most(self) -> int:
        """Entries of the largest table."""
        return int(self.high.sum(dtype=np.int64))

    @property
    def free(self) -> npt.NDArray[np.bool_]:
        """bool[n]: rows whose size is to be chosen."""
        return self.low < self.high


def size_bounds(config: RecommenderConfig, n_users: int, n_items: int) -> SizeBounds:
    """The sizes that a backbone's rows may have: `min_size` to `max_size`, and 0 for the users of `items`.

    Args:
        config: settings of the recommender.
        n_users: number of users.
        n_items: number of items.

    Returns:
        bounds of n rows, users first.
    """
    bounds = SizeBounds.uniform(n_users + n_items, config.min_size, config.max_size)
    if config.backbone in WITHOUT_USERS:
        bounds.low[:n_users] = bounds.high[:n_users] = 0
    return bounds
