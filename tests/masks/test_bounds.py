"""Sizes between bounds: which rows may have none, and what the rules for sizes make of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciess import masks
from ciess.config.recommender import RecommenderConfig
from ciess.errors import BudgetError
from ciess.masks.bounds import SizeBounds, size_bounds

N_USERS, N_ITEMS, MAX_SIZE = 30, 20, 16
N = N_USERS + N_ITEMS
DEGREES = np.arange(N, 0, -1)


def bounds_of(backbone: str, **settings: int) -> SizeBounds:
    return size_bounds(RecommenderConfig(backbone=backbone, max_size=MAX_SIZE, **settings), N_USERS, N_ITEMS)


@pytest.mark.parametrize(
    ("backbone", "settings", "users", "items"),
    [
        ("lightgcn", {}, (0, 16), (0, 16)),
        ("lightgcn", {"min_size": 2}, (2, 16), (2, 16)),
        ("ngcf", {}, (0, 16), (0, 16)),
        ("ncf", {}, (1, 16), (1, 16)),
        ("items", {}, (0, 0), (1, 16)),
        ("items", {"min_size": 0}, (0, 0), (0, 16)),
    ],
)
def test_the_bounds_of_a_backbone(
    backbone: str, settings: dict[str, int], users: tuple[int, int], items: tuple[int, int]
) -> None:
    bounds = bounds_of(backbone, **settings)
    for rows, (low, high) in ((slice(0, N_USERS), users), (slice(N_USERS, None), items)):
        assert set(bounds.low[rows].tolist()) == {low} and set(bounds.high[rows].tolist()) == {high}
    assert bounds.least == N_USERS * users[0] + N_ITEMS * items[0]
    assert bounds.most == N_USERS * users[1] + N_ITEMS * items[1]
    assert bounds.n == N


def test_a_full_table_is_the_largest_that_the_bounds_allow() -> None:
    mask = masks.full(N, MAX_SIZE, bounds_of("items"))
    assert mask.sizes.tolist() == [0] * N_USERS + [16] * N_ITEMS
    assert float(masks.sparsity(mask)) == pytest.approx(N_USERS / N)


def test_equal_sizes_share_the_budget_among_the_rows_that_may_have_one() -> None:
    """10 % of 50 x 16 are 80 entries: 4 for each of 20 items."""
    mask = masks.equal(N, MAX_SIZE, 0.9, bounds=bounds_of("items"))
    assert mask.sizes.tolist() == [0] * N_USERS + [4] * N_ITEMS
    filled = masks.equal(N, MAX_SIZE, 0.88, "filled", DEGREES, bounds_of("items"))
    assert filled.kept == masks.budget(N, MAX_SIZE, 0.88) == 96
    assert filled.sizes[N_USERS:].tolist() == [5] * 16 + [4] * 4


def test_budgets_up_to_what_one_row_allows() -> None:
    free = bounds_of("lightgcn")
    assert masks.budget(N, MAX_SIZE, 0.998, free) == 1
    with pytest.raises(BudgetError, match=r"leaves 0 parameters for 50 rows, but a table keeps one or more"):
        masks.budget(N, MAX_SIZE, 0.999, free)
    with pytest.raises(BudgetError, match=r"each of 20 rows keeps at least 1 of its 16.*at most 0\.975"):
        masks.budget(N, MAX_SIZE, 0.99, bounds_of("items"))
    with pytest.raises(BudgetError, match=r"the smallest sizes keep 100.*at most 0\.875"):
        masks.budget(N, MAX_SIZE, 0.9, bounds_of("lightgcn", min_size=2))


def test_equal_sizes_that_would_be_0_stand_for_the_most_popular() -> None:
    found = masks.equals(MAX_SIZE, 0.97, DEGREES, bounds_of("lightgcn"))
    assert [mask.kept for mask in found] == [24]
    assert found[0].sizes.tolist() == [1] * 24 + [0] * 26


backbones = st.sampled_from(["lightgcn", "ncf", "items"])


@given(backbone=backbones, sparsity=st.sampled_from([0.3, 0.5, 0.8, 0.9]), seed=st.integers(0, 1000))
def test_mixed_sizes_keep_bounds_and_use_the_budget(backbone: str, sparsity: float, seed: int) -> None:
    bounds = bounds_of(backbone)
    mask = masks.mixed(N, MAX_SIZE, sparsity, seed, bounds=bounds)
    assert (mask.sizes >= bounds.low).all() and (mask.sizes <= bounds.high).all()
    assert mask.kept == min(bounds.most, masks.budget(N, MAX_SIZE, sparsity, bounds))


@given(
    backbone=backbones,
    sparsity=st.sampled_from([0.3, 0.5, 0.8, 0.9, 0.93]),
    seed=st.integers(0, 1000),
    none=st.floats(0, 1),
)
def test_projection_keeps_bounds_budget_and_order(backbone: str, sparsity: float, seed: int, none: float) -> None:
    """Rows that are wanted nothing of keep their smallest size; where all others are full, the budget is not used."""
    bounds = bounds_of(backbone)
    generator = np.random.default_rng(seed)
    wanted = generator.uniform(0.5, 40, N)
    wanted[(generator.random(N) < none) & (bounds.low == 0)] = 0
    mask = masks.project(wanted, MAX_SIZE, sparsity, DEGREES, bounds)
    assert (mask.sizes >= bounds.low).all() and (mask.sizes <= bounds.high).all()
    assert (mask.sizes[(wanted == 0)] == 0).all()
    most = int(bounds.high[wanted > 0].sum())
    assert mask.kept == min(most, masks.budget(N, MAX_SIZE, sparsity, bounds))
    for rows in (slice(0, N_USERS), slice(N_USERS, N)):
        order = np.argsort(wanted[rows], kind="stable")
        assert (np.diff(mask.sizes[rows][order].astype(int)) >= 0).all()


def test_an_item_in_want_of_nothing_is_refused_where_it_keeps_one() -> None:
    with pytest.raises(BudgetError, match="Wanted sizes must be positive and finite"):
        masks.project(np.zeros(N), MAX_SIZE, 0.9, DEGREES, bounds_of("items"))
