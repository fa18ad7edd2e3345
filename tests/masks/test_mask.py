from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ciess.errors import BudgetError
from ciess.masks.budget import budget, sparsity
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.masks.sizes import equal, equals, full, mixed, project

PERCENT = st.integers(1, 99).map(lambda share: Fraction(share, 100))
ML_1M, YELP2018 = 9_746, 69_716


def prefix(*sizes: int, max_size: int = 4) -> PrefixMask:
    return PrefixMask(np.array(sizes), max_size)


@st.composite
def wanted_sizes(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], int, npt.NDArray[np.int64], Fraction]:
    """Actions with many ties, max_size, degrees with many ties, a sparsity that can be reached."""
    n = draw(st.integers(1, 30))
    max_size = draw(st.integers(2, 40))
    numbers = st.sampled_from([1.0, 1.5, 2.0, 3.0, 7.25]) | st.floats(0.01, 200)
    actions = np.array(draw(st.lists(numbers, min_size=n, max_size=n)))
    degrees = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    c = draw(PERCENT)
    assume((1 - c) * max_size >= 1)
    return actions, max_size, degrees, c


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


class TestSparsity:
    def test_eq5_is_the_share_that_is_removed(self) -> None:
        assert sparsity(prefix(0, 1, 3, 4)) == Fraction(1, 2)
        assert sparsity(full(3, 128)) == 0
        assert sparsity(SparseMask.from_dense(np.array([[1, 0, 0, 0, 0, 0]], dtype=bool), 3)) == Fraction(5, 6)

    @given(st.lists(st.integers(0, 7), min_size=1))
    def test_eq5_is_exact(self, sizes: list[int]) -> None:
        assert sparsity(PrefixMask(np.array(sizes), 7)) == 1 - Fraction(sum(sizes), 7 * len(sizes))

    @given(st.lists(st.integers(0, 7), min_size=1))
    def test_eq5_is_the_same_for_both_kinds_of_mask(self, sizes: list[int]) -> None:
        mask = PrefixMask(np.array(sizes), 7)
        assert sparsity(SparseMask.from_dense(mask.dense(), 7)) == sparsity(mask)


class TestBudget:
    def test_eq5_a_tenth_of_128_times_100_is_1280(self) -> None:
        assert int((1 - 0.9) * 128 * 100) == 1279  # what binary fractions make of it
        assert budget(100, 128, 0.9) == 1280

    @pytest.mark.parametrize(
        ("n", "c", "entries"),
        [
            (ML_1M, 0.8, 249_497),
            (ML_1M, 0.9, 124_748),
            (ML_1M, 0.95, 62_374),
            (YELP2018, 0.8, 1_784_729),
            (YELP2018, 0.9, 892_364),
            (YELP2018, 0.95, 446_182),
        ],
    )
    def test_eq5_budgets_of_the_papers_data(self, n: int, c: float, entries: int) -> None:
        assert budget(n, 128, c) == entries

    def test_eq5_takes_a_float_a_text_and_a_fraction_alike(self) -> None:
        assert budget(7, 13, 0.3) == budget(7, 13, "0.3") == budget(7, 13, Fraction(3, 10)) == 63

    @given(st.integers(1, 10_000), st.integers(1, 256), PERCENT)
    def test_eq5_is_the_largest_count_that_satisfies_it(self, n: int, max_size: int, c: Fraction) -> None:
        assume((1 - c) * max_size >= 1)
        entries = budget(n, max_size, c)
        assert 1 - Fraction(entries, n * max_size) >= c > 1 - Fraction(entries + 1, n * max_size)

    @pytest.mark.parametrize("c", [0, 1, -0.1, 1.5, 0.0, 1.0, 90])
    def test_sparsity_outside_0_and_1_is_refused(self, c: float) -> None:
        with pytest.raises(BudgetError, match=rf"The sparsity is {c:g}, but it must lie between 0 and 1: .* Choose"):
            budget(100, 128, c)

    def test_sparsity_that_leaves_less_than_a_column_is_refused(self) -> None:
        with pytest.raises(BudgetError, match=r"leaves 64 parameters for 100 rows, .* at least 1 of its 128 dim"):
            budget(100, 128, 0.995)

    @pytest.mark.parametrize("max_size", [2, 3, 7, 100, 128, 256])
    def test_the_sparsity_that_the_error_advises_can_be_reached(self, max_size: int) -> None:
        with pytest.raises(BudgetError, match="at most") as caught:
            budget(100, max_size, 0.9999)
        advised = str(caught.value).rsplit(" ", 1)[1].rstrip(".")
        assert budget(100, max_size, advised) >= 100


class TestEqual:
    @pytest.mark.parametrize(("c", "size"), [(0.8, 25), (0.9, 12), (0.95, 6)])
    def test_floor_sizes_of_the_papers_budgets(self, c: float, size: int) -> None:
        mask = equal(ML_1M, 128, c)
        assert set(mask.sizes.tolist()) == {size}
        assert sparsity(mask) == 1 - Fraction(size, 128) >= Fraction(str(c))

    @pytest.mark.parametrize(("c", "size"), [(0.8, 26), (0.9, 13), (0.95, 6)])
    def test_rounded_sizes_break_the_budget_twice(self, c: float, size: int) -> None:
        mask = equal(ML_1M, 128, c, rule="round")
        assert set(mask.sizes.tolist()) == {size}
        assert (mask.kept > budget(ML_1M, 128, c)) == (c < 0.95)

    def test_filled_gives_the_rest_to_the_rows_of_highest_degree_then_first_row(self) -> None:
        degrees = np.array([5, 9, 5, 1, 5])
        mask = equal(5, 10, 0.74, rule="filled", degrees=degrees)  # 13 entries: two each, and three more
        assert mask.sizes.tolist() == [3, 3, 3, 2, 2]

    @given(st.integers(1, 60), st.integers(1, 40), PERCENT, st.integers(0, 99))
    def test_filled_uses_the_budget_to_the_last_parameter(self, n: int, max_size: int, c: Fraction, seed: int) -> None:
        assume((1 - c) * max_size >= 1)
        degrees = np.random.default_rng(seed).integers(0, 5, n)
        sizes = equal(n, max_size, c, rule="filled", degrees=degrees).sizes
        assert sizes.sum() == budget(n, max_size, c)
        assert sizes.max() - sizes.min() <= 1
        more, fewer = degrees[sizes > sizes.min()], degrees[sizes == sizes.min()]
        assert more.min(initial=99) >= fewer.max()

    def test_filled_without_the_degrees_of_all_rows_is_refused(self) -> None:
        for degrees in (None, np.array([1, 2])):
            with pytest.raises(BudgetError, match=r"need the degrees of all 3 rows\. Pass degrees="):
                equal(3, 10, 0.5, rule="filled", degrees=degrees)


class TestEquals:
    @given(st.integers(1, 60), st.integers(1, 40), PERCENT, st.integers(0, 99))
    def test_plain_and_filled_unless_plain_uses_the_whole_budget(
        self, n: int, max_size: int, c: Fraction, seed: int
    ) -> None:
        assume((1 - c) * max_size >= 1)
        degrees = np.random.default_rng(seed).integers(0, 5, n)
        masks = equals(max_size, c, degrees)
        entries = budget(n, max_size, c)
        assert len(masks) == (1 if entries % n == 0 else 2)
        assert set(masks[0].sizes.tolist()) == {entries // n}
        assert masks[-1].kept == entries
        np.testing.assert_array_equal(masks[-1].sizes, equal(n, max_size, c, "filled", degrees).sizes)

    def test_a_budget_that_cannot_be_met_is_refused(self) -> None:
        with pytest.raises(BudgetError, match=r"leaves 1 parameters for 3 rows"):
            equals(4, 0.9, np.zeros(3, dtype=int))


class TestMixed:
    @given(st.integers(1, 60), st.integers(1, 40), PERCENT, st.integers(0, 99))
    def test_sizes_use_the_budget_to_the_last_parameter(self, n: int, max_size: int, c: Fraction, seed: int) -> None:
        assume((1 - c) * max_size >= 1)
        mask = mixed(n, max_size, c, seed)
        assert mask.kept == budget(n, max_size, c)
        assert mask.sizes.min() >= 1

    @given(st.integers(1, 60), st.integers(2, 40), PERCENT, st.integers(0, 99))
    def test_without_fill_sizes_lie_in_1_to_h_within_the_budget(
        self, n: int, max_size: int, c: Fraction, seed: int
    ) -> None:
        assume((1 - c) * max_size >= 1)
        mask = mixed(n, max_size, c, seed, fill=False)
        assert mask.kept <= budget(n, max_size, c)
        assert 1 <= mask.sizes.min() <= mask.sizes.max() <= max(1, min(max_size, int(2 * (1 - c) * max_size - 1)))

    @pytest.mark.parametrize(("c", "largest"), [(0.8, 50), (0.9, 24), (0.95, 11)])
    def test_sizes_are_uniform_on_1_to_h(self, c: float, largest: int) -> None:
        sizes = mixed(ML_1M, 128, c, seed=1, fill=False).sizes
        counts = np.bincount(sizes, minlength=largest + 1)
        assert len(counts) == largest + 1
        assert counts[0] == 0
        assert stats.chisquare(counts[1:]).pvalue > 1e-3

    def test_equal_seeds_give_equal_sizes_and_others_others(self) -> None:
        np.testing.assert_array_equal(mixed(50, 128, 0.9, seed=3).sizes, mixed(50, 128, 0.9, seed=3).sizes)
        assert (mixed(50, 128, 0.9, seed=3).sizes != mixed(50, 128, 0.9, seed=4).sizes).any()


def oracle(actions: npt.NDArray[np.float64], max_size: int, entries: int, degrees: npt.NDArray[np.int64]) -> list[int]:
    """Raise the scale from 0: row n gets dimension k when scale * action = k. Everyone starts with one."""
    gains = [
        (Fraction(k) / Fraction(float(action)), -float(action), -int(degree), row)
        for row, (action, degree) in enumerate(zip(actions, degrees, strict=True))
        for k in range(2, max_size + 1)
    ]
    sizes = [1] * len(actions)
    for *_, row in sorted(gains)[: entries - len(actions)]:
        sizes[row] += 1
    return sizes


class TestProject:
    @given(wanted_sizes())
    def test_the_budget_is_used_to_the_last_parameter(self, case) -> None:
        actions, max_size, degrees, c = case
        mask = project(actions, max_size, c, degrees)
        assert mask.kept == budget(len(actions), max_size, c)
        assert 1 <= mask.sizes.min() <= mask.sizes.max() <= max_size

    @given(st.integers(0, 10_000))
    def test_sizes_are_those_of_a_scale_that_rises_until_the_budget_is_used(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        n, max_size = int(generator.integers(1, 20)), int(generator.integers(2, 20))
        actions = generator.uniform(0.1, 30, n)[generator.integers(0, n, n)]  # with ties
        degrees = generator.integers(0, 3, n)
        c = Fraction(int(generator.integers(1, 101 - -(-100 // max_size))), 100)
        expected = oracle(actions, max_size, budget(n, max_size, c), degrees)
        assert project(actions, max_size, c, degrees).sizes.tolist() == expected

    @given(wanted_sizes())
    def test_a_larger_action_never_gets_a_smaller_size(self, case) -> None:
        actions, max_size, degrees, c = case
        sizes = project(actions, max_size, c, degrees).sizes
        order = np.argsort(actions, kind="stable")
        larger = actions[order[1:]] > actions[order[:-1]]
        assert (np.diff(sizes[order])[larger] >= 0).all()
        for action in np.unique(actions):
            assert np.ptp(sizes[actions == action]) <= 1

    @given(wanted_sizes())
    def test_ties_go_by_degree_then_row(self, case) -> None:
        actions, max_size, degrees, c = case
        sizes = project(actions, max_size, c, degrees).sizes
        for action in np.unique(actions):
            rows = np.flatnonzero(actions == action)
            rows = rows[np.lexsort((rows, -degrees[rows]))]
            assert (np.diff(sizes[rows]) <= 0).all()

    @given(wanted_sizes(), PERCENT)
    def test_a_larger_budget_never_takes_a_dimension_from_a_row(self, case, other: Fraction) -> None:
        actions, max_size, degrees, c = case
        assume((1 - other) * max_size >= 1)
        small, large = (project(actions, max_size, share, degrees).sizes for share in (max(c, other), min(c, other)))
        assert (small <= large).all()

    @given(wanted_sizes(), st.integers(-4, 4))
    def test_only_the_ratios_of_the_actions_count(self, case, power: int) -> None:
        actions, max_size, degrees, c = case
        expected = project(actions, max_size, c, degrees).sizes
        np.testing.assert_array_equal(project(actions * 2.0**power, max_size, c, degrees).sizes, expected)

    def test_sizes_that_meet_the_budget_stay_as_they_are(self) -> None:
        sizes = mixed(500, 128, 0.9, seed=0).sizes
        np.testing.assert_array_equal(project(sizes.astype(float), 128, 0.9, np.zeros(500, dtype=int)).sizes, sizes)

    @pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
    def test_actions_that_are_not_positive_numbers_are_refused(self, bad: float) -> None:
        with pytest.raises(BudgetError, match=r"must be positive and finite; found some that are not\. Give sizes"):
            project(np.array([1.0, bad, 2.0]), 10, 0.5, np.zeros(3, dtype=int))
