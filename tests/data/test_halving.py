"""Validation in two halves: by user, all of it, the same whenever it is cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciess.data import Pairs
from ciess.data.halving import check_halves, halves
from ciess.errors import DataError


def pairs_of(counts: list[int], n_items: int = 50) -> Pairs:
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(len(counts)), counts)
    items = np.concatenate([generator.permutation(n_items)[:count] for count in counts] or [np.empty(0, np.int64)])
    return Pairs.sorted(users, items)


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_each_pair_is_in_one_half_and_a_user_s_are_shared_evenly(counts: list[int], seed: int) -> None:
    valid = pairs_of(counts)
    first, second = halves(valid, len(counts), seed)
    together = first + second  # Pairs refuses a pair that comes twice
    assert np.array_equal(together.users, valid.users) and np.array_equal(together.items, valid.items)
    of_user = np.diff(first.indptr(len(counts))), np.diff(second.indptr(len(counts)))
    assert np.abs(of_user[0] - of_user[1]).max() <= 1


def test_users_with_one_item_serve_one_half_and_either_serves() -> None:
    first, second = halves(pairs_of([1] * 400), 400)
    assert 150 < len(first) < 250 and len(first) + len(second) == 400


def test_the_cut_depends_on_the_split_and_on_nothing_else() -> None:
    valid = pairs_of([6] * 50)
    again, other = halves(valid, 50, 3)[0], halves(valid, 50, 4)[0]
    assert np.array_equal(halves(valid, 50, 3)[0].items, again.items)
    assert not np.array_equal(again.items, other.items)


def test_too_little_is_refused_and_single_items_are_said() -> None:
    with pytest.raises(DataError) as raised:
        check_halves(pairs_of([1] * 30 + [4] * 10 + [0] * 5), 45, "Do this.")
    assert str(raised.value) == (
        "Of 40 users with validation items 30 have one only, so that validation is too small to be cut in two. "
        "Expected 2 items or more for most users, or 200 users. Do this."
    )
    said = check_halves(pairs_of([1] * 300 + [2] * 20), 320, "")
    assert said == "300 of 320 users have one validation item only: each serves one of the two halves"
    assert check_halves(pairs_of([2] * 30 + [1] * 10), 40, "") is None
