from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from known_masks import ML_1M, PERCENT
from scipy import stats

from ciess.errors import BudgetError
from ciess.masks.budget import budget, sparsity
from ciess.masks.sizes import equal, equals, mixed, project


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
