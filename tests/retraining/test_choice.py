"""Which mask validation chooses, what its table is called, and what is written of the choice."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.data import Pairs
from ciess.errors import BudgetError, RunDirectoryError
from ciess.masks.mask import PrefixMask
from ciess.retraining.choice import (
    Judged,
    Option,
    chosen_of,
    decide,
    mask_key,
    mean_ratio,
    options_for,
    record_choice,
    recorded_choices,
    searched_table,
)
from ciess.search.candidates import Candidate
from ciess.search.environment import Environment
from ciess.storage.columns import CHOSEN, EQUAL_WON, RETRAINED, SEARCHED
from ciess.storage.storage import Storage

MAX_SIZE = 8


def option(*sizes: int, origin: str = "search", short_ratio: float | None = 0.5) -> Option:
    return Option(PrefixMask(np.array(sizes, np.int16), MAX_SIZE), origin, f"{origin} {sizes}", short_ratio)


def judged(*ratios: float) -> list[Judged]:
    return [Judged(ratio, ratio / 2, 10 + place) for place, ratio in enumerate(ratios)]


def config(**changes: Any) -> SearchConfig:
    return SearchConfig(**{"max_size": MAX_SIZE, "sparsities": (0.5,), "device": "cpu", "threads": 1} | changes)


@pytest.fixture
def environment() -> Environment:
    """2 users and 2 items: user 0 has met both, user 1 the second; item 0 has a reference of 0."""
    train = Pairs.sorted(np.array([0, 0, 1]), np.array([0, 1, 1]))
    reference = np.array([0.5, 0.8, 0.0, 0.5], np.float32)
    return Environment(train, 2, 2, MAX_SIZE, reference, np.ones(4, np.bool_))


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


class TestRatio:
    def test_by_hand(self, environment: Environment) -> None:
        """Users 0.25/0.5 and 0.8/0.8, item 0 has nothing to lose, item 1 the mean of both users: 0.525/0.5, at most 1.

        So (0.5 + 1 + 1 + 1) / 4.
        """
        assert mean_ratio(environment, np.array([0.25, 0.8], np.float32)) == pytest.approx(3.5 / 4, abs=1e-7)


class TestChosen:
    @pytest.mark.parametrize(
        ("origins", "ratios", "expected"),
        [
            (("search", "search", "equal"), (0.5, 0.7, 0.6), (1, 1)),
            (("search", "search", "equal"), (0.5, 0.6, 0.7), (2, 1)),
            (("search", "search", "equal"), (0.7, 0.7, 0.7), (0, 0)),
            (("search", "equal", "equal"), (0.6, 0.7, 0.7), (1, 0)),
            (("equal", "search"), (0.7, 0.7), (0, 1)),
            (("projected", "search", "equal"), (0.6, 0.6, 0.7), (2, 0)),
            (("search",), (0.0,), (0, 0)),
        ],
    )
    def test_the_largest_ratio_and_of_equal_ones_the_first(
        self, origins: tuple[str, ...], ratios: tuple[float, ...], expected: tuple[int, int]
    ) -> None:
        options = [option(place + 1, origin=origin) for place, origin in enumerate(origins)]
        assert chosen_of(options, judged(*ratios)) == expected

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.25, 0.5, 0.75])), min_size=1, max_size=7))
    def test_equal_sizes_are_never_the_searched_ones(self, values: list[tuple[bool, float]]) -> None:
        values.insert(len(values) // 2, (False, 0.25))
        options = [option(place + 1, origin="equal" if equal else "search") for place, (equal, _) in enumerate(values)]
        winner, searched = chosen_of(options, judged(*(ratio for _, ratio in values)))
        ratios = [ratio for _, ratio in values]
        assert winner == ratios.index(max(ratios))
        own = [place for place, (equal, _) in enumerate(values) if not equal]
        assert searched == max(own, key=lambda place: (ratios[place], -place))
        assert options[searched].origin != "equal"


class TestDecision:
    def test_a_searched_mask_that_won_is_the_only_table(self, run: Storage) -> None:
        options = [option(2), option(4, origin="equal")]
        decision = decide(run, 0.5, 0, options, judged(0.7, 0.6))
        assert decision.rule_won is None
        ((position, table),) = decision.tables(config(), "abc", 0.5, 0)
        assert (position, table.name, table.role, table.flag) == (0, "ciess-c50-s0", CHOSEN, None)

    def test_equal_sizes_that_won_have_the_best_searched_mask_beside_them(self, run: Storage) -> None:
        options = [option(1), option(2), option(4, origin="equal")]
        decision = decide(run, 0.5, 3, options, judged(0.4, 0.5, 0.6))
        assert decision.rule_won == EQUAL_WON
        found = [(n, t.name, t.role, t.flag) for n, t in decision.tables(config(), "abc", 0.5, 3, "v")]
        assert found == [
            (2, "ciess-c50-v-s3", CHOSEN, EQUAL_WON),
            (1, "ciess-c50-searched-v-s3", SEARCHED, None),
        ]

    def test_what_stood_for_choice_is_written(self, run: Storage) -> None:
        decide(run, 0.5, 0, [option(2), option(4, origin="equal")], judged(0.5, 0.6))
        assert [row["selected"] for row in recorded_choices(run)] == [False, True]


class TestOptions:
    def test_of_the_search_and_equal_sizes(self, environment: Environment) -> None:
        """A mask of the search that is one of equal sizes stands once, as the search's own."""
        seen = [self.visited([4] * 4, 0.9, 1), self.visited([1, 1, 8, 1], 0.7, 2), self.visited([8] * 4, 1.0, 3)]
        options = options_for(0.5, seen, config(), RetrainConfig(), environment, "DIR")
        assert [(one.origin, one.mask.sizes.tolist(), one.short_ratio) for one in options] == [
            ("search", [4, 4, 4, 4], 0.9),
            ("search", [1, 1, 8, 1], 0.7),
        ]
        assert [one.key for one in options] == [mask_key(one.mask) for one in options]
        options = options_for(0.5, seen[1:], config(), RetrainConfig(), environment, "DIR")
        assert [(one.origin, one.where) for one in options] == [
            ("search", "episode 1, iteration 2, lane 0"),
            ("equal", "equal sizes of 4"),
        ]

    def test_a_search_without_masks(self, environment: Environment) -> None:
        with pytest.raises(BudgetError) as caught:
            options_for(0.5, [], config(), RetrainConfig(), environment, "DIR")
        assert str(caught.value) == (
            "DIR holds no mask of a search; one finished iteration or more was expected. Run `ciess search` with "
            "--resume first."
        )

    def test_no_mask_keeps_it(self, environment: Environment) -> None:
        seen = [self.visited([8, 8, 8, 4], 0.9, 1)]
        with pytest.raises(BudgetError, match=r"^No mask of this search keeps a sparsity of 0\.5: the sparsest one "):
            options_for(0.5, seen, config(), RetrainConfig(), environment, "DIR")
        (found, equal) = options_for(0.5, seen, config(), RetrainConfig(project=True), environment, "DIR")
        assert (found.origin, found.mask.kept, equal.origin) == ("projected", 16, "equal")

    def visited(self, sizes: npt.ArrayLike, ratio: float, iteration: int) -> Candidate:
        mask = PrefixMask(np.asarray(sizes, np.int16), MAX_SIZE)
        kept = 1 - mask.kept / mask.total
        return Candidate(1, iteration, 0, kept, ratio, ratio, ratio / 2, "search", mask)


class TestTable:
    def test_what_it_says_of_its_search(self) -> None:
        one = option(1, 2, 3)
        table = searched_table(one, config(memory_weight=0.8, noise="ou"), "abc", 0.9, 7)
        assert (table.name, table.method, table.seed, table.flag) == ("ciess-c90-s7", "ciess", 7, None)
        assert table.target_sparsity == Fraction(9, 10)
        assert table.mask is one.mask
        assert table.search == {
            "search_id": "abc",
            "strategy": "td3",
            "halves": False,
            "budget_mode": "penalty",
            "memory_weight": 0.8,
            "noise": "ou",
            "random_walk": True,
            "walk_weights": "distance",
            "mask": "search (1, 2, 3)",
            "mask_sha256": one.key,
        }

    def test_without_a_walk_it_has_no_weights(self) -> None:
        table = searched_table(option(1), config(random_walk=False), "abc", 0.9, 0, EQUAL_WON, role=SEARCHED)
        assert (table.search["random_walk"], table.search["walk_weights"]) == (False, None)
        assert (table.name, table.flag) == ("ciess-c90-searched-s0", EQUAL_WON)

    @pytest.mark.parametrize(("flag", "expected"), [(None, "projected"), ("more", "projected, more")])
    def test_a_projected_mask_is_flagged(self, flag: str | None, expected: str) -> None:
        assert searched_table(option(1, origin="projected"), config(), "abc", 0.9, 0, flag).flag == expected


class TestRecord:
    def test_what_stood_for_choice(self, run: Storage) -> None:
        options = [option(2, 4), option(4, 4, origin="equal", short_ratio=None)]
        record_choice(run, 0.5, 3, options, judged(0.5, 0.75), 1)
        assert run.read_table("retrained.parquet").schema == RETRAINED
        shared = {"target_sparsity": 0.5, "seed": 3}
        assert recorded_choices(run) == [
            shared
            | {"origin": "search", "where": "search (2, 4)", "sparsity": 0.625, "short_quality_ratio": 0.5}
            | {
                "quality_ratio": 0.5,
                "quality": 0.25,
                "choice_quality": None,
                "epochs": 10,
                "selected": False,
                "mask": options[0].key,
            },
            shared
            | {"origin": "equal", "where": "equal (4, 4)", "sparsity": 0.5, "short_quality_ratio": None}
            | {
                "quality_ratio": 0.75,
                "quality": 0.375,
                "choice_quality": None,
                "epochs": 11,
                "selected": True,
                "mask": options[1].key,
            },
        ]

    def test_rows_of_its_budget_and_seed_alone_are_replaced(self, run: Storage) -> None:
        for sparsity, seed in ((0.5, 0), (0.5, 1), (0.75, 0)):
            record_choice(run, sparsity, seed, [option(4), option(3)], judged(0.5, 0.4), 0)
        before = recorded_choices(run)
        record_choice(run, 0.5, 0, [option(2)], judged(0.6), 0)
        after = recorded_choices(run)
        assert after[:-1] == [row for row in before if (row["target_sparsity"], row["seed"]) != (0.5, 0)]
        assert len(after) == 5
        assert (after[-1]["mask"], after[-1]["quality_ratio"]) == (option(2).key, 0.6)

    def test_as_many_results_as_masks(self, run: Storage) -> None:
        with pytest.raises(ValueError, match="zip"):
            record_choice(run, 0.5, 0, [option(1), option(2)], judged(0.5), 0)
        assert not run.exists("retrained.parquet")

    def test_none_where_nothing_was_recorded(self, run: Storage) -> None:
        assert recorded_choices(run) == []

    def test_a_file_of_another_program(self, run: Storage) -> None:
        run.write_table("retrained.parquet", RETRAINED.empty_table().drop_columns("mask"))
        with pytest.raises(RunDirectoryError, match="lacks the columns mask;"):
            recorded_choices(run)
