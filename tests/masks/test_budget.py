from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from known_masks import ML_1M, PERCENT, YELP2018, prefix

from ciess.errors import BudgetError
from ciess.masks.budget import budget, sparsity
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.masks.sizes import full


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
