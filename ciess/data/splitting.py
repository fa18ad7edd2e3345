"""The random 50/25/25 split of each user's interactions (paper 3.2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ciess.data.interactions import Pairs
from ciess.errors import DataError, InputError

# Keeps the stream of splits apart from every other use of the same small seed.
SPLIT_STREAM = 0x5B117


def cut_points(counts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where train and validation end among a user's shuffled interactions (published code).

    Args:
        counts: int64[n_users], interactions of each user.

    Returns:
        round(0.5 count) and round(0.75 count), int64[n_users], halves to the even neighbour.
    """
    return np.rint(0.5 * counts).astype(np.int64), np.rint(0.75 * counts).astype(np.int64)


def split_per_user(pairs: Pairs, n_users: int, split_seed: int, source: str) -> tuple[Pairs, Pairs, Pairs]:
    """Split every user's pairs at random into train, validation and test (paper 3.2: 50/25/25).

    The draw depends on the pairs and the seed alone. Unlike the published code, which restarts the
    same seed for every user, one stream serves all users, so users' splits are independent.

    Args:
        pairs: all pairs; every user has at least one.
        n_users: number of users.
        split_seed: seed of the shuffle, at least 0.
        source: named in the error.

    Returns:
        train, validation and test pairs.

    Raises:
        DataError: a user would have no training pair, which is so for a single interaction.
        InputError: the seed is negative.
    """
    counts = np.diff(pairs.indptr(n_users))
    first_cut, second_cut = cut_points(counts)
    short = int(np.count_nonzero(first_cut == 0))
    if short:
        raise DataError(
            f"{source}: {short:,} of {n_users:,} users have too few interactions to split. A user's training part is "
            "round(0.5 x interactions), halves to even, and must hold a pair. Expected 2 interactions "
            "or more of every user. Pass min_interactions=2 to drop these users, or give data that is already split."
        )
    rank = _shuffled_ranks(pairs, n_users, split_seed)
    in_train = rank < first_cut[pairs.users]
    in_test = rank >= second_cut[pairs.users]
    return pairs.select(in_train), pairs.select(~in_train & ~in_test), pairs.select(in_test)


def split_off_validation(train: Pairs, n_users: int, split_seed: int) -> tuple[Pairs, Pairs]:
    """Set a random third of every user's training pairs aside, for input without a validation part.

    Of n pairs, round(n / 3) are set aside: a 75/25 input becomes 50/25/25, and a user with one or
    more training pairs keeps at least one.

    Args:
        train: training pairs.
        n_users: number of users.
        split_seed: seed of the shuffle, at least 0.

    Returns:
        the training pairs that stay, and the validation pairs.

    Raises:
        InputError: the seed is negative.
    """
    counts = np.diff(train.indptr(n_users))
    set_aside = (2 * counts + 3) // 6
    in_valid = _shuffled_ranks(train, n_users, split_seed) < set_aside[train.users]
    return train.select(~in_valid), train.select(in_valid)


def check_split_seed(split_seed: int) -> None:
    """Check the seed of a split.

    Raises:
        InputError: it is negative.
    """
    if split_seed < 0:
        raise InputError(f"split_seed is {split_seed}. Expected a whole number from 0. Pass for instance split_seed=0.")


def _shuffled_ranks(pairs: Pairs, n_users: int, split_seed: int) -> npt.NDArray[np.int64]:
    check_split_seed(split_seed)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([SPLIT_STREAM, split_seed])))
    order = np.lexsort((generator.random(len(pairs)), pairs.users))
    ranks = np.empty(len(pairs), np.int64)
    # Sorted pairs and shuffled pairs share the users' blocks, so one set of row pointers serves both.
    ranks[order] = np.arange(len(pairs)) - pairs.indptr(n_users)[pairs.users]
    return ranks
