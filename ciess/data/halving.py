"""Validation in two halves: a search sees one, what it found is chosen on the other."""

import numpy as np
import numpy.typing as npt

from ciess.data.interactions import Pairs
from ciess.errors import DataError
from ciess.seeds import derive_seed

LEAST_USERS = 100
"""Users with pairs in each half, below which one of them says nothing."""


def halves(valid: Pairs, n_users: int, split_seed: int | None = None) -> tuple[Pairs, Pairs]:
    """Cut the validation pairs of every user in two.

    A user's items are drawn into an order; the first half of them goes to one part, the others to the other. Of an odd
    number the middle one goes to either by a draw, so that a user with one item serves one of the two.

    Args:
        valid: the pairs, sorted by user.
        n_users: number of users.
        split_seed: of the split of the data, from which that of this cut is derived.

    Returns:
        pairs to search by, and pairs to choose by.
    """
    seed = derive_seed(0 if split_seed is None else split_seed, "validation halves")
    generator = np.random.Generator(np.random.PCG64(seed))
    indptr = valid.indptr(n_users)
    order = np.lexsort((generator.random(len(valid)), valid.users))
    rank: npt.NDArray[np.int64] = np.empty(len(valid), np.int64)
    rank[order] = np.arange(len(valid)) - indptr[valid.users]
    upwards = generator.integers(0, 2, n_users)
    first = rank < ((np.diff(indptr) + upwards) // 2)[valid.users]
    return valid.select(first), valid.select(~first)


def check_halves(valid: Pairs, n_users: int, way_out: str) -> str | None:
    """Whether validation can be cut in two.

    Args:
        valid: the pairs.
        n_users: number of users.
        way_out: what to do where it cannot.

    Returns:
        a sentence where most users have one item only, so that they serve one half each; None otherwise.

    Raises:
        DataError: that is so, and a half would be left with fewer than LEAST_USERS users.
    """
    counts = np.diff(valid.indptr(n_users))
    held, single = int((counts > 0).sum()), int((counts == 1).sum())
    if 2 * single <= held:
        return None
    if held < 2 * LEAST_USERS:
        raise DataError(
            f"Of {held:,} users with validation items {single:,} have one only, so that validation is too small to be "
            f"cut in two. Expected 2 items or more for most users, or {2 * LEAST_USERS:,} users. {way_out}"
        )
    return f"{single:,} of {held:,} users have one validation item only: each serves one of the two halves"
