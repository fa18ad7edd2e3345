import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_masks import YELP2018, prefix

from ciess.errors import BudgetError
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.masks.sizes import full


class TestPrefixMask:
    def test_eq2_keeps_the_first_columns_of_every_row(self) -> None:
        expected = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
        np.testing.assert_array_equal(prefix(0, 1, 3, 4).dense(), np.array(expected, dtype=bool))

    @given(st.lists(st.integers(0, 9), max_size=20), st.integers(0, 9))
    def test_eq2_entry_s_of_row_n_is_kept_where_s_is_at_most_d_n(self, sizes: list[int], width: int) -> None:
        dense = PrefixMask(np.array(sizes, dtype=np.int64), 9).dense(width)
        assert dense.shape == (len(sizes), width)
        for row, size in enumerate(sizes):
            for column in range(width):
                assert dense[row, column] == (column + 1 <= size)

    def test_width_is_the_largest_size(self) -> None:
        assert prefix(0, 2, 1).width == 2
        assert prefix(0, 0).width == 0

    def test_counts_of_sizes_above_the_range_of_int16_are_exact(self) -> None:
        mask = full(YELP2018, 128)
        assert mask.kept == mask.total == 8_923_648
        assert mask.sizes.dtype == np.int16

    @pytest.mark.parametrize(
        ("sizes", "text"),
        [
            ([1, 5], r"Sizes must lie in 0\.\.4; found 1\.\.5\. Change the sizes or max_size"),
            ([-1, 2], r"Sizes must lie in 0\.\.4; found -1\.\.2"),
            ([40_000, 2], r"found 2\.\.40000"),
            ([1.0, 2.0], r"one integer a row; found an array of shape \(2,\) and type float64\. Round them"),
            ([[1, 2]], r"found an array of shape \(1, 2\)"),
            ([True, False], r"type bool"),
        ],
    )
    def test_sizes_that_are_none_are_refused(self, sizes: list[object], text: str) -> None:
        with pytest.raises(BudgetError, match=text):
            PrefixMask(np.array(sizes), 4)


class TestSparseMask:
    @given(st.integers(0, 6), st.integers(1, 5), st.integers(1, 2), st.data())
    def test_dense_round_trip(self, n: int, max_size: int, tables: int, data: st.DataObject) -> None:
        flat = data.draw(st.lists(st.booleans(), min_size=n * tables * max_size, max_size=n * tables * max_size))
        dense = np.array(flat, dtype=bool).reshape(n, tables * max_size)
        mask = SparseMask.from_dense(dense, max_size)
        np.testing.assert_array_equal(mask.dense(), dense)
        assert (mask.tables, mask.kept, mask.total) == (tables, dense.sum(), dense.size)

    def test_rows_and_columns_are_those_of_csr(self) -> None:
        mask = SparseMask.from_dense(np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=bool), 4)
        assert mask.indptr.tolist() == [0, 2, 2, 3]
        assert mask.columns.tolist() == [1, 3, 0]
        assert (mask.indptr.dtype, mask.columns.dtype) == (np.int64, np.int16)

    def test_width_is_that_of_the_widest_of_two_tables(self) -> None:
        dense = np.zeros((2, 8), dtype=bool)
        dense[0, 1] = dense[1, 4 + 2] = True
        mask = SparseMask.from_dense(dense, 4)
        assert mask.width == 3
        expected = np.array([[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=bool)
        np.testing.assert_array_equal(mask.dense(3), expected)

    def test_width_of_an_empty_mask_is_zero(self) -> None:
        mask = SparseMask.from_dense(np.zeros((3, 4), dtype=bool), 4)
        assert mask.width == 0
        assert mask.dense(0).shape == (3, 0)

    @pytest.mark.parametrize(
        ("indptr", "columns", "text"),
        [
            ([0, 2], [0], r"Row pointers must rise from 0 to the number of kept entries \(1\)"),
            ([1, 1], [0], "Row pointers must rise"),
            ([0, 2, 1], [0], "Row pointers must rise"),
            ([], [], "Row pointers must rise"),
            ([0, 1], [4], r"Columns must lie in 0\.\.3; found 4\.\.4"),
            ([0, 1], [-1], r"Columns must lie in 0\.\.3; found -1\.\.-1"),
            ([0, 1], [65_536], r"Columns must lie in 0\.\.3; found 65536\.\.65536"),
            ([0, 2], [1, 1], "Columns must ascend in each row without repeats"),
            ([0, 2], [2, 1], r"Columns must ascend.*SparseMask\.from_dense"),
        ],
    )
    def test_broken_rows_are_refused(self, indptr: list[int], columns: list[int], text: str) -> None:
        with pytest.raises(BudgetError, match=text):
            SparseMask(np.array(indptr, dtype=np.int64), np.array(columns, dtype=np.int64), 4)
