"""Which users stand for all where ranking every one of them would take longer than training."""

import numpy as np
import numpy.typing as npt

from ciess.seeds import derive_seed

EVERYONE = 100_000
"""Users up to which all are ranked."""

SAMPLED = 10_000
"""Users that stand for more than that: a mean of Eq. 8 then has a standard error of about .002."""


def evaluated_users(n_users: int, wanted: int | None) -> npt.NDArray[np.int64] | None:
    """The users that validation and test rank, drawn uniformly by a seed of their own.

    Args:
        n_users: number of users.
        wanted: users to rank; 0 for all; None for all up to EVERYONE and SAMPLED of more.

    Returns:
        codes int64[wanted], ascending; None for all.
    """
    if wanted is None:
        wanted = SAMPLED if n_users > EVERYONE else 0
    if wanted == 0 or wanted >= n_users:
        return None
    generator = np.random.Generator(np.random.PCG64(derive_seed(n_users, "evaluated users")))
    return np.sort(generator.permutation(n_users)[:wanted])
