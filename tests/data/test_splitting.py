from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciess.data import Pairs
from ciess.data.splitting import cut_points, split_off_validation, split_per_user
from ciess.errors import DataError, InputError

# A few users, each with a set of two or more items.
histories = st.lists(st.sets(st.integers(0, 30), min_size=2), min_size=1, max_size=8)


def pairs_of(items_by_user):
    users = [user for user, items in enumerate(items_by_user) for _ in items]
    return Pairs.sorted(np.array(users), np.array([item for items in items_by_user for item in items]))


def as_set(pairs):
    return set(zip(pairs.users.tolist(), pairs.items.tolist(), strict=True))


@given(histories, st.integers(0, 2**40))
@settings(deadline=None)
def test_split_is_a_partition_with_the_cut_points_of_the_paper(items_by_user, seed):
    pairs = pairs_of(items_by_user)
    parts = split_per_user(pairs, len(items_by_user), seed, "here")
    assert sum(len(part) for part in parts) == len(pairs)
    assert set.union(*map(as_set, parts)) == as_set(pairs)
    for user, items in enumerate(items_by_user):
        sizes = [int(np.count_nonzero(part.users == user)) for part in parts]
        first, second = round(Fraction(len(items), 2)), round(Fraction(3 * len(items), 4))
        assert sizes == [first, second - first, len(items) - second]


def test_halves_go_to_the_even_neighbour():
    first, second = cut_points(np.array([1, 2, 3, 5, 6, 7, 10]))
    assert first.tolist() == [0, 1, 2, 2, 3, 4, 5]
    assert second.tolist() == [1, 2, 2, 4, 4, 5, 8]


@given(histories, st.integers(0, 1000))
@settings(deadline=None)
def test_a_third_of_training_is_set_aside(items_by_user, seed):
    pairs = pairs_of(items_by_user)
    train, valid = split_off_validation(pairs, len(items_by_user), seed)
    assert as_set(train) | as_set(valid) == as_set(pairs)
    assert not as_set(train) & as_set(valid)
    for user, items in enumerate(items_by_user):
        assert np.count_nonzero(valid.users == user) == round(Fraction(len(items), 3))


def test_a_single_training_pair_stays_in_training():
    train, valid = split_off_validation(pairs_of([{3}]), 1, 0)
    assert (len(train), len(valid)) == (1, 0)


def test_seed_decides_and_every_item_can_go_anywhere():
    pairs = pairs_of([set(range(20))] * 40)
    first, again, other = (split_per_user(pairs, 40, seed, "here")[0] for seed in (0, 0, 1))
    assert np.array_equal(first.items, again.items)
    assert not np.array_equal(first.items, other.items)
    # 800 fair draws of one half, spread over items and users: five standard deviations.
    by_item = np.bincount(first.items, minlength=20)
    assert np.all(np.abs(by_item - 20) < 5 * np.sqrt(10))


def test_users_with_one_interaction_are_counted():
    with pytest.raises(DataError) as error:
        split_per_user(pairs_of([{1}, {1, 2}, {4}]), 3, 0, "ratings.dat")
    assert str(error.value) == (
        "ratings.dat: 2 of 3 users have too few interactions to split. A user's training part is "
        "round(0.5 x interactions), halves to even, and must hold a pair. Expected 2 interactions or more of every "
        "user. Pass min_interactions=2 to drop these users, or give data that is already split."
    )


def test_negative_seed_is_refused():
    with pytest.raises(InputError, match=r"split_seed is -1\. Expected a whole number from 0\. Pass"):
        split_off_validation(pairs_of([{1, 2}]), 1, -1)
