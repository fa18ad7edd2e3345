from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.data.planted import Planted
from ciess.methods import METHODS
from ciess.methods.fixed import equal, full, mixed
from ciess.seeds import derive_seed
from ciess.tables.spec import TableSpec

BUDGETS = [Fraction(4, 5), Fraction(9, 10), Fraction(19, 20)]


def sizes(table: TableSpec) -> Any:
    assert isinstance(table.mask, masks.PrefixMask)
    return table.mask.sizes


def only_size(table: TableSpec) -> int:
    (size,) = set(sizes(table).tolist())
    return int(size)


def degrees(planted: Planted) -> Any:
    return planted.data.degrees()


@pytest.mark.parametrize("budgets", [BUDGETS, BUDGETS[:1], []])
def test_the_full_table_comes_once_whatever_the_budgets(planted: Planted, budgets: Sequence[Fraction]) -> None:
    (table,) = full(planted.data, FitConfig(), budgets, 3)
    assert (table.name, table.target_sparsity, table.flag) == ("full-s3", None, None)
    assert only_size(table) == 128
    assert masks.sparsity(table.mask) == 0


def test_equal_sizes_are_25_12_and_6_of_128(planted: Planted) -> None:
    tables = equal(planted.data, FitConfig(), BUDGETS, 0)
    assert [only_size(table) for table in tables] == [25, 12, 6]
    assert [table.name for table in tables] == ["equal-c80-s0", "equal-c90-s0", "equal-c95-s0"]
    assert [table.flag for table in tables] == [None] * 3


def test_rounded_sizes_are_flagged_where_they_break_the_budget(planted: Planted) -> None:
    tables = equal(planted.data, FitConfig(equal_rule="round"), BUDGETS, 0)
    assert [only_size(table) for table in tables] == [26, 13, 6]
    assert [table.flag for table in tables] == ["over budget", "over budget", None]
    assert tables[0].name == "equal-c80-round-s0"


def test_filled_sizes_use_the_budget_up_and_favour_the_most_popular(planted: Planted) -> None:
    for table, c in zip(equal(planted.data, FitConfig(equal_rule="filled"), BUDGETS, 0), BUDGETS, strict=True):
        assert table.mask.kept == int((1 - c) * planted.data.n * 128)
        assert table.flag is None
        more = sizes(table) > sizes(table).min()
        assert 0 < more.sum() < planted.data.n
        assert sizes(table).max() == sizes(table).min() + 1
        assert degrees(planted)[more].min() >= degrees(planted)[~more].max()


def test_mixed_sizes_are_drawn_anew_for_each_seed(planted: Planted) -> None:
    drawn = {seed: mixed(planted.data, FitConfig(), BUDGETS, seed) for seed in (0, 1)}
    for seed, tables in drawn.items():
        for table, c in zip(tables, BUDGETS, strict=True):
            bounds = masks.SizeBounds.uniform(planted.data.n, 0, 128)
            expected = masks.mixed(planted.data.n, 128, c, derive_seed(seed, "mixed", str(c)), bounds=bounds)
            np.testing.assert_array_equal(sizes(table), expected.sizes)
            assert table.mask.kept == masks.budget(planted.data.n, 128, c)
    for first, second in zip(drawn[0], drawn[1], strict=True):
        assert (sizes(first) != sizes(second)).any()


def test_mixed_sizes_without_fill_stay_below_the_budget(planted: Planted) -> None:
    filled, not_filled = (
        mixed(planted.data, FitConfig(mixed_fill=fill), BUDGETS[:1], 4)[0].mask.kept for fill in (True, False)
    )
    assert filled == masks.budget(planted.data.n, 128, "0.8")
    expected = masks.mixed(planted.data.n, 128, "0.8", derive_seed(4, "mixed", "4/5"), fill=False)
    assert not_filled == expected.kept <= filled


@pytest.mark.parametrize("rule", ["floor", "round", "filled"])
@pytest.mark.parametrize("max_size", [32, 128])
@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.learned])
def test_every_table_keeps_its_budget_or_says_that_it_does_not(
    planted: Planted, method: str, max_size: int, rule: str
) -> None:
    config = FitConfig(max_size=max_size, equal_rule=rule)
    tables = METHODS[method].compress(planted.data, config, BUDGETS, 2)
    assert tables
    for table in tables:
        assert table.method == method
        assert table.seed == 2
        assert len(sizes(table)) == planted.data.n
        assert table.mask.max_size == max_size
        if table.target_sparsity is not None:
            kept_to = table.mask.kept <= masks.budget(planted.data.n, max_size, table.target_sparsity)
            assert kept_to == (table.flag != "over budget")
    assert len({table.name for table in tables}) == len(tables)
