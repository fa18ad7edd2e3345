import pickle

import numpy as np
import pyarrow as pa
import pytest

from ciess.data import Interactions, Pairs
from ciess.errors import DataError


def codes(*values):
    return np.array(values, np.int32)


@pytest.fixture
def small():
    return Interactions(
        name="small",
        source="somewhere.csv",
        user_ids=pa.array([7, 42, 100]),
        item_ids=pa.array(["a", "b", "c", "d"]),
        train=Pairs(codes(0, 0, 1, 2), codes(0, 2, 0, 1)),
        valid=Pairs(codes(0, 1), codes(1, 1)),
        test=Pairs(codes(0), codes(3)),
        split_seed=0,
        sha256="0",
        notes=(),
    )


def test_row_pointers_cover_users_without_pairs():
    pairs = Pairs(codes(1, 1, 3), codes(0, 2, 1))
    assert len(pairs) == 3
    assert pairs.indptr(5).dtype == np.int64
    assert pairs.indptr(5).tolist() == [0, 0, 2, 2, 3, 3]
    assert Pairs.none().indptr(2).tolist() == [0, 0, 0]


def test_pairs_refuse_what_is_unsorted_repeated_or_mistyped():
    with pytest.raises(ValueError, match="sorted"):
        Pairs(codes(1, 0), codes(0, 0))
    with pytest.raises(ValueError, match="unique"):
        Pairs(codes(0, 0), codes(1, 1))
    with pytest.raises(ValueError, match="int32"):
        Pairs(np.array([0, 1]), np.array([0, 1]))
    with pytest.raises(ValueError, match="one length"):
        Pairs(codes(0), codes(0, 1))


def test_sorted_brings_pairs_into_order():
    pairs = Pairs.sorted(np.array([1, 0, 1]), np.array([2, 5, 0]))
    assert pairs.users.tolist() == [0, 1, 1]
    assert pairs.items.tolist() == [5, 0, 2]


def test_degrees_are_of_training_pairs(small):
    assert small.user_degrees().tolist() == [2, 1, 1]
    assert small.item_degrees().tolist() == [2, 1, 1, 0]
    assert small.user_degrees().dtype == small.item_degrees().dtype == np.int64
    assert small.n == small.n_users + small.n_items == 7


def test_merged_moves_validation_into_training(small):
    merged = small.merged()
    assert list(zip(merged.train.users.tolist(), merged.train.items.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
        (2, 1),
    ]
    assert len(merged.valid) == 0
    assert merged.test is small.test
    assert merged.split_seed == 0


def test_counts_are_over_all_splits(small):
    assert small.counts() == {
        "users": 3,
        "items": 4,
        "interactions": 7,
        "density": 7 / 12,
        "user_degree": {"min": 1, "mean": 7 / 3, "max": 4},
        "item_degree": {"min": 1, "mean": 7 / 4, "max": 3},
        "train": 4,
        "valid": 2,
        "test": 1,
    }


def test_find_user_by_number_or_text(small):
    assert small.find_user(42) == small.find_user("42") == 1


def test_find_user_takes_numbers_for_text_ids(small):
    texts = pickle.loads(pickle.dumps(small))
    object.__setattr__(texts, "user_ids", pa.array(["007", "42", "x"]))
    assert texts.find_user("007") == 0
    assert texts.find_user(42) == 1
    with pytest.raises(DataError):
        texts.find_user(7)


@pytest.mark.parametrize("unknown", [8, "eight", "4_2", -1, 42.5, 2**70])
def test_unknown_user_is_named_with_examples(small, unknown):
    with pytest.raises(DataError) as error:
        small.find_user(unknown)
    assert str(error.value) == (
        f"User {unknown!r} is not in somewhere.csv. Expected the id of one of its 3 users, such as 7, 42, 100. "
        "Give an id as it stands in the input; a user without interactions has no row."
    )
