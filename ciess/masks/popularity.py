"""Sizes by popularity: a share of a budget for either side, and in it a power of each row's degree."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ciess.masks.bounds import SizeBounds
from ciess.masks.mask import PrefixMask
from ciess.masks.sizes import project

NOTHING = 1e-9
"""Share of what is wanted at most, for rows that are wanted nothing of but may not go without."""


def shared_out(
    wanted: npt.NDArray[np.float64], n_users: int, item_share: float, low: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Wanted sizes of which items' rows take a share together, and users' rows the rest.

    Args:
        wanted: float64[n], positive, users first; only proportions within a side count.
        n_users: number of users.
        item_share: from 0 to 1.
        low: smallest size of each row; where it is not 0, a side that takes nothing still wants some.

    Returns:
        float64[n].
    """
    found = wanted.copy()
    for rows, share in ((slice(0, n_users), 1 - item_share), (slice(n_users, None), item_share)):
        found[rows] *= share / max(float(found[rows].sum()), np.finfo(np.float64).tiny)
    # A side that takes nothing keeps its smallest sizes.
    shared: npt.NDArray[np.float64] = np.where((found > 0) | (low == 0), found, NOTHING * found.max())
    return shared


def sized_mask(
    degrees: npt.NDArray[np.int64],
    n_users: int,
    max_size: int,
    sparsity: float | str | Fraction,
    bounds: SizeBounds,
    item_share: float,
    popularity: float,
) -> PrefixMask:
    """Sizes ~ share(side) degree^popularity that use a budget to the last parameter.

    Args:
        degrees: training pairs of each row, int64[n], users first.
        n_users: number of users.
        max_size: columns of the full table, d_max.
        sparsity: share of the table that is removed.
        bounds: of the sizes.
        item_share: of the budget that items' rows take.
        popularity: exponent of the degrees; a row without pairs counts as one with one.

    Returns:
        the mask.

    Raises:
        BudgetError: the sparsity cannot be met.
    """
    wanted = np.maximum(degrees, 1).astype(np.float64) ** popularity
    return project(shared_out(wanted, n_users, item_share, bounds.low), max_size, sparsity, degrees, bounds)
