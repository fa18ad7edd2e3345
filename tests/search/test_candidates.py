import io
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from ciess.config.search import SearchConfig
from ciess.errors import BudgetError
from ciess.masks.budget import budget
from ciess.masks.mask import PrefixMask
from ciess.masks.sizes import equals, project
from ciess.search.candidates import (
    Candidate,
    best_searched,
    from_columns,
    from_table,
    projected,
    select,
    sparsest,
    to_columns,
    to_table,
)
from ciess.storage.columns import CANDIDATES

MAX_SIZE = 5
RATIOS = st.sampled_from([0.1, 0.5, 0.9]) | st.floats(0, 1)
BUDGETS = st.sampled_from([0.2, 0.4, 0.6, 0.8]) | st.integers(1, 99).map(lambda share: share / 100)


def visit(
    sizes: list[int] | npt.NDArray[np.int16],
    ratio: float = 0.5,
    users: float = 0.5,
    place: tuple[int, int, int] = (0, 1, 1),
    origin: str = "search",
    max_size: int = MAX_SIZE,
) -> Candidate:
    lane, episode, iteration = place
    kept = 1 - int(np.sum(sizes)) / (len(sizes) * max_size)
    mask = PrefixMask(np.array(sizes, dtype=np.int16), max_size)
    return Candidate(episode, iteration, lane, kept, ratio, users, ratio / 2, origin, mask)


@st.composite
def visits(draw: st.DrawFn) -> list[Candidate]:
    """Few sizes and ratios, so that masks, sparsities and ratios meet again."""
    n = draw(st.integers(1, 4))
    return [
        visit(
            draw(st.lists(st.integers(1, MAX_SIZE), min_size=n, max_size=n)),
            draw(RATIOS),
            draw(RATIOS),
            (draw(st.integers(0, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))),
            draw(st.sampled_from(["search", "search", "equal"])),
        )
        for _ in range(draw(st.integers(0, 12)))
    ]


def written(value: float) -> Fraction:
    return Fraction(str(value))


def by_hand(found: list[Candidate], sparsity: float, count: int, by: str, buckets: tuple[float, ...]) -> list[int]:
    """Positions of the best: each beats all that follow by its ratio, or by having been visited first."""

    def kept(position: int) -> Fraction:
        return 1 - Fraction(sum(found[position].mask.sizes.tolist()), len(found[position].mask.sizes) * MAX_SIZE)

    def ratio(position: int) -> float:
        return found[position].users_quality_ratio if by == "users" else found[position].quality_ratio

    left = []
    for position in range(len(found)):
        again = any((found[other].mask.sizes == found[position].mask.sizes).all() for other in range(position))
        met = {written(bucket) for bucket in buckets if kept(position) >= written(bucket)}
        if kept(position) >= written(sparsity) and not again and (not buckets or max(met) == written(sparsity)):
            left.append(position)
    best = []
    while left and len(best) < count:
        first = left[0]
        for position in left:
            if ratio(position) > ratio(first):
                first = position
        left.remove(first)
        best.append(first)
    return best


def positions(best: list[Candidate], found: list[Candidate]) -> list[int]:
    return [next(i for i, candidate in enumerate(found) if candidate is one) for one in best]


class TestSelect:
    @given(visits(), BUDGETS, st.integers(0, 5), st.sampled_from(["all", "users"]))
    def test_eq15_the_best_masks_that_keep_the_budget(
        self, found: list[Candidate], sparsity: float, count: int, by: str
    ) -> None:
        assert positions(select(found, sparsity, count, by), found) == by_hand(found, sparsity, count, by, ())

    @given(visits(), st.sampled_from([0.2, 0.4, 0.6]), st.integers(0, 5))
    def test_in_buckets_a_mask_serves_the_largest_budget_that_it_meets(
        self, found: list[Candidate], sparsity: float, count: int
    ) -> None:
        buckets = (0.4, 0.2, 0.6)
        best = select(found, sparsity, count, buckets=buckets)
        assert positions(best, found) == by_hand(found, sparsity, count, "all", buckets)

    @given(visits(), BUDGETS, BUDGETS)
    def test_eq15_a_mask_serves_every_budget_that_it_keeps(
        self, found: list[Candidate], one: float, other: float
    ) -> None:
        small, large = (select(found, budget, 99) for budget in (max(one, other), min(one, other)))
        assert {id(candidate) for candidate in small} <= {id(candidate) for candidate in large}

    @given(st.integers(1, 40), st.integers(2, 128), st.integers(1, 99))
    def test_eq15_the_border_is_exact(self, n: int, max_size: int, share: int) -> None:
        """A mask of exactly the budget counts and one of a parameter more does not, as no binary fraction decides."""
        sparsity = share / 100
        entries = n * max_size * (100 - share) // 100
        if entries < n:
            return
        sizes = np.full(n, entries // n, np.int16)
        sizes[: entries % n] += 1
        assert len(select([visit(sizes, max_size=max_size)], sparsity, 1)) == 1
        more = np.array(sizes)
        more[n - 1] += 1
        assert select([visit(more, max_size=max_size)], sparsity, 1) == []

    def test_eq15_a_tenth_of_128_times_100_is_kept(self) -> None:
        """In binary fractions 1 - 1280 / 12800 is 0.9 and 1 - 0.9 is less than 0.1."""
        sizes = np.full(100, 13, np.int16)
        sizes[:20] -= 1
        assert len(select([visit(sizes, max_size=128)], 0.9, 1)) == 1
        assert len(select([visit(sizes, max_size=128)], "0.9", 1)) == 1
        assert select([visit(sizes, max_size=128)], Fraction(901, 1000), 1) == []

    def test_a_mask_that_was_visited_twice_counts_once_and_as_first_found(self) -> None:
        first, other, again = visit([1, 2], 0.3), visit([2, 1], 0.4), visit([1, 2], 0.9)
        assert positions(select([first, other, again], 0.2, 3), [first, other, again]) == [1, 0]

    def test_equal_ratios_go_by_the_order_of_visit(self) -> None:
        found = [visit([1, 3], 0.5), visit([1, 2], 0.7), visit([2, 2], 0.5), visit([2, 1], 0.7)]
        assert positions(select(found, 0.2, 4), found) == [1, 3, 0, 2]

    def test_nothing_of_nothing(self) -> None:
        assert select([], 0.5, 3) == []
        assert sparsest([]) is None


class TestBestSearched:
    @given(visits(), st.booleans(), st.sampled_from(["all", "users"]))
    def test_by_the_rules_of_the_config_and_without_equal_sizes(
        self, found: list[Candidate], buckets: bool, by: Any
    ) -> None:
        config = SearchConfig(
            max_size=MAX_SIZE,
            sparsities=(0.2, 0.4, 0.6),
            candidates=2,
            candidate_buckets=buckets,
            candidate_quality=by,
        )
        searched = [candidate for candidate in found if candidate.origin == "search"]
        for sparsity in (0.2, 0.4, 0.6):
            for count, expected in ((None, 2), (0, 0), (1, 1), (9, 9)):
                best = best_searched(found, config, sparsity, count)
                bounds = (0.2, 0.4, 0.6) if buckets else ()
                assert positions(best, searched) == by_hand(searched, sparsity, expected, by, bounds)

    def test_an_equal_mask_does_not_hide_the_same_one_that_was_searched(self) -> None:
        found = [visit([2, 2], 0.9, place=(0, 0, 1), origin="equal"), visit([2, 2], 0.4)]
        assert best_searched(found, SearchConfig(max_size=MAX_SIZE), 0.5, 3) == found[1:]


class TestProjected:
    def test_sizes_that_break_a_budget_are_projected_to_it(self) -> None:
        candidate, degrees = visit([5, 3, 1, 4]), np.array([1, 2, 3, 4])
        mask = projected(candidate, 0.5, degrees)
        assert mask.kept == budget(4, MAX_SIZE, 0.5) == 10
        np.testing.assert_array_equal(mask.sizes, project(np.array([5.0, 3, 1, 4]), MAX_SIZE, 0.5, degrees).sizes)

    def test_a_budget_that_cannot_be_met_is_refused(self) -> None:
        with pytest.raises(BudgetError, match="at most"):
            projected(visit([5, 3]), 0.9, np.array([1, 2]))

    def test_the_sparsest(self) -> None:
        found = [visit([3, 3]), visit([1, 2]), visit([2, 1])]
        assert sparsest(found) is found[1]


class TestWhere:
    @pytest.mark.parametrize(
        ("candidate", "text"),
        [
            (visit([2, 5], place=(1, 4, 3)), "episode 4, iteration 3, lane 1"),
            (visit([2, 2], place=(0, 0, 1), origin="equal"), "equal sizes of 2"),
            (visit([2, 3], place=(0, 0, 2), origin="equal"), "equal sizes of 2, one more for the most popular"),
        ],
    )
    def test_it_reads_well(self, candidate: Candidate, text: str) -> None:
        assert candidate.where == text


def fields(found: list[Candidate]) -> list[tuple[Any, ...]]:
    """What candidates compare by: all fields, sizes as bytes, and the types of all."""
    rows = []
    for c in found:
        row = (c.episode, c.iteration, c.lane, c.sparsity, c.quality_ratio, c.users_quality_ratio, c.quality, c.origin)
        sizes = c.mask.sizes
        rows.append((*row, *map(type, row), sizes.dtype.str, sizes.tobytes(), c.mask.max_size))
    return rows


class TestColumnsAndTables:
    @given(visits())
    def test_columns_hold_the_candidates(self, found: list[Candidate]) -> None:
        n = len(found[0].mask.sizes) if found else 3
        columns = to_columns(found, n)
        assert columns["sizes"].shape == (len(found), n)
        assert columns["sizes"].dtype == np.int16
        assert fields(from_columns(columns, MAX_SIZE)) == fields(found)
        assert fields(from_columns(load(save(columns)), MAX_SIZE)) == fields(found)

    @given(visits())
    def test_a_table_holds_the_candidates(self, found: list[Candidate]) -> None:
        table = to_table(found, len(found[0].mask.sizes) if found else 3)
        assert table.schema == CANDIDATES
        table.validate(full=True)
        assert fields(from_table(table, MAX_SIZE)) == fields(found)
        file = io.BytesIO()
        pq.write_table(table, file)
        read = pq.read_table(file)
        assert read.schema == CANDIDATES
        assert fields(from_table(read, MAX_SIZE)) == fields(found)

    @given(visits(), st.integers(0, 12), st.integers(0, 12))
    def test_rows_of_a_table_can_be_chosen(self, found: list[Candidate], first: int, count: int) -> None:
        table = to_table(found, len(found[0].mask.sizes) if found else 3)
        chosen = found[first : first + count]
        assert fields(from_table(table.slice(first, count), MAX_SIZE)) == fields(chosen)
        twice = pa.concat_tables([table.slice(first, count), table])
        assert fields(from_table(twice, MAX_SIZE)) == fields(chosen + found)

    def test_a_row_is_readable_without_this_package(self) -> None:
        found = [visit([1, 4], 0.25, 0.75, (2, 7, 3)), visit([2, 2], 0.5, 0.5, (0, 0, 1), "equal")]
        assert to_table(found, 2).to_pylist() == [
            {
                "episode": 7,
                "iteration": 3,
                "lane": 2,
                "sparsity": 0.5,
                "quality_ratio": 0.25,
                "users_quality_ratio": 0.75,
                "quality": 0.125,
                "choice_quality": None,
                "origin": "search",
                "start": None,
                "sizes": [1, 4],
            },
            {
                "episode": 0,
                "iteration": 1,
                "lane": 0,
                "sparsity": 0.6,
                "quality_ratio": 0.5,
                "users_quality_ratio": 0.5,
                "quality": 0.25,
                "choice_quality": None,
                "origin": "equal",
                "start": None,
                "sizes": [2, 2],
            },
        ]

    def test_sizes_above_max_size_are_refused(self) -> None:
        found = [visit([1, 4])]
        for make in (lambda: from_table(to_table(found, 2), 3), lambda: from_columns(to_columns(found, 2), 3)):
            with pytest.raises(BudgetError, match=r"must lie in 0\.\.3; found 1\.\.4"):
                make()

    def test_candidates_do_not_share_the_memory_of_the_columns(self) -> None:
        columns = to_columns([visit([1, 4])], 2)
        (candidate,) = from_columns(columns, MAX_SIZE)
        columns["sizes"][:] = 5
        assert candidate.mask.sizes.tolist() == [1, 4]


def test_equal_masks_of_a_budget_are_candidates_of_it() -> None:
    degrees = np.arange(7)
    found = [visit(mask.sizes, origin="equal") for mask in equals(MAX_SIZE, 0.45, degrees)]
    assert len(select(found, 0.45, 9)) == len(found) == 2
