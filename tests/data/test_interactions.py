import dataclasses

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


def test_degrees_stand_users_first(small):
    degrees = small.degrees()
    assert degrees.dtype == np.int64
    np.testing.assert_array_equal(degrees[: small.n_users], small.user_degrees())
    np.testing.assert_array_equal(degrees[small.n_users :], small.item_degrees())
    assert len(degrees) == small.n


class TestRequire:
    def test_parts_with_pairs_pass(self, small):
        small.require("train", "valid", "test")

    @pytest.mark.parametrize(
        ("parts", "found"),
        [
            (("valid",), "0 validation pairs, but one or more were"),
            (("valid", "test"), "0 validation and 1 test pairs, but one or more of each were"),
        ],
    )
    def test_an_empty_part_is_refused_with_the_counts(self, small, parts, found):
        empty = dataclasses.replace(small, valid=Pairs.none())
        with pytest.raises(DataError) as error:
            empty.require(*parts)
        assert str(error.value) == (f"somewhere.csv has {found} expected. Give data with more interactions a user.")
