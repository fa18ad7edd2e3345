"""Sizes by popularity: the family, its budget, and the climb that chooses among it."""

from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.data.planted import Planted
from ciess.masks.popularity import sized_mask
from ciess.methods.journal import Journal
from ciess.methods.sized import sized
from ciess.training.starts.tuning import Climb

BUDGETS = [Fraction(9, 10), Fraction(4, 5)]


def settings(backbone: str = "lightgcn", **changes: object) -> FitConfig:
    return FitConfig(backbone=backbone, max_size=16, threads=1, device="cpu", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("popularity", [0.0, 0.5, 1.1])
def test_sizes_follow_share_and_degree(planted: Planted, share: float, popularity: float) -> None:
    data, config = planted.data, settings()
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    mask = sized_mask(data.degrees(), data.n_users, 16, 0.9, bounds, share, popularity)
    assert mask.kept == masks.budget(data.n, 16, 0.9, bounds)
    users, items = mask.sizes[: data.n_users], mask.sizes[data.n_users :]
    if share in (0.0, 1.0):
        assert (users if share else items).max() == 0
    else:
        assert items.sum() / mask.kept == pytest.approx(share, abs=0.12)
    for sizes, degrees in ((users, data.user_degrees()), (items, data.item_degrees())):
        order = np.lexsort((sizes, degrees))
        assert (np.diff(sizes[order].astype(int)) >= 0).all() if popularity else True
        assert sizes.max() - sizes.min() <= 1 if popularity == 0 else True


def test_a_side_that_takes_nothing_keeps_its_smallest_sizes(planted: Planted) -> None:
    data, config = planted.data, settings(min_size=1)
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    mask = sized_mask(data.degrees(), data.n_users, 16, 0.8, bounds, 1.0, 0.5)
    assert set(mask.sizes[: data.n_users].tolist()) == {1}
    assert mask.kept == masks.budget(data.n, 16, 0.8, bounds)


@pytest.mark.parametrize("backbone", ["lightgcn", "items", "ncf"])
def test_a_table_a_budget_in_the_order_asked_for_with_its_start(planted: Planted, backbone: str) -> None:
    tables = sized(planted.data, settings(backbone), BUDGETS, 3)
    assert [table.target_sparsity for table in tables] == BUDGETS
    assert [table.name for table in tables] == ["sized-c90-s3", "sized-c80-s3"]
    for table in tables:
        assert table.start is not None and table.start.name == "spectral"
        assert masks.sparsity(table.mask) >= table.target_sparsity
        assert 0 < table.search["judged"] < 1


def test_the_chosen_point_is_the_best_that_was_judged(planted: Planted) -> None:
    journal = Journal()
    (table,) = sized(planted.data, settings(), BUDGETS[:1], 0, journal)
    judged = [row["quality"] for row in journal.rows]
    assert table.search["judged"] == max(judged)
    assert [row["step"] for row in journal.rows] == list(range(1, len(judged) + 1))
    assert {0.0, 0.5, 1.0} <= {row["item_share"] for row in journal.rows}


def test_nothing_is_drawn(planted: Planted) -> None:
    first, second = (sized(planted.data, settings(), BUDGETS[:1], seed)[0] for seed in (0, 1))
    np.testing.assert_array_equal(first.mask.sizes, second.mask.sizes)
    assert first.start == second.start


class TestClimb:
    GRID: ClassVar = {"x": (0.0, 1.0, 2.0, 3.0), "y": ("a", "b", "c")}

    def test_it_reaches_the_top_of_a_hill_and_asks_for_no_point_twice(self) -> None:
        asked: list[tuple[object, ...]] = []

        def judge(point: dict[str, float | str]) -> float:
            asked.append((point["x"], point["y"]))
            return -abs(float(point["x"]) - 2) - abs("abc".index(str(point["y"])) - 1)

        climb = Climb(self.GRID, judge)
        assert climb.run({"x": 0.0, "y": "c"}) == {"x": 2.0, "y": "b"}
        assert len(asked) == len(set(asked))
        assert climb.value({"x": 2.0, "y": "b"}) == 0 and len(asked) == len(set(asked))

    def test_of_equals_it_stays_with_the_first(self) -> None:
        climb = Climb(self.GRID, lambda point: 1.0)
        assert climb.run({"x": 1.0, "y": "b"}) == {"x": 1.0, "y": "b"}
        assert climb.best_of([{"x": 3.0, "y": "a"}, {"x": 0.0, "y": "c"}]) == {"x": 3.0, "y": "a"}

    def test_rounds_are_the_most_it_takes(self) -> None:
        climb = Climb(self.GRID, lambda point: float(point["x"]) if point["y"] == "a" else float(point["x"]) + 10)
        assert climb.run({"x": 0.0, "y": "a"}, rounds=1) == {"x": 3.0, "y": "b"}
