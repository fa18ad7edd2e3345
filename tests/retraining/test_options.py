"""What stands for choice: masks of the search by their short fits, equal sizes, projected masks."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciess.config.search import SearchConfig
from ciess.data.planted import Planted
from ciess.errors import BudgetError
from ciess.retraining.retraining import Retraining
from ciess.search.reference import Reference
from ciess.storage.columns import PROJECTED
from ciess.storage.storage import Storage

MAX_SIZE = 16
Start = Callable[..., Retraining]
Call = Callable[..., Any]


class TestOptions:
    @pytest.mark.parametrize("include_equal", [True, False])
    @pytest.mark.parametrize("by", ["all", "users"])
    def test_the_best_by_their_short_fits_and_equal_sizes(
        self,
        planted: Planted,
        config: SearchConfig,
        found: Reference,
        by: str,
        include_equal: bool,
        candidate: Call,
        prepared: Call,
    ) -> None:
        """Beside sorting by hand, where masks are visited twice and ratios are equal now and then."""
        data, generator = planted.data, np.random.default_rng(5)
        degrees = [*data.user_degrees().tolist(), *data.item_degrees().tolist()]
        by_degree = sorted(range(data.n), key=lambda row: (-degrees[row], row))
        refused = 0
        for _ in range(40):
            sparsity, count = generator.choice([0.75, 0.8, 0.85]), int(generator.integers(1, 5))
            pool = [generator.integers(1, 2 * generator.integers(2, 5), data.n).tolist() for _ in range(4)]
            pool.append([int((1 - sparsity) * MAX_SIZE)] * data.n)
            sizes = [pool[place] for place in generator.integers(0, 5, generator.integers(1, 8))]
            ratios = generator.choice([0.25, 0.5, 0.75], (len(sizes), 2)).tolist()
            seen = [
                candidate(mask, ratio, place, users=users)
                for place, (mask, (ratio, users)) in enumerate(zip(sizes, ratios, strict=True))
            ]
            settings = {"candidates": count, "include_equal": include_equal, "candidate_quality": by}
            changed = config.model_copy(update=settings)
            retraining = prepared(data, changed, found, Storage("nowhere"), seen, sparsity=(sparsity,))
            budget = (1 - Fraction(str(sparsity))) * data.n * MAX_SIZE
            kept = [place for place, mask in enumerate(sizes) if sum(mask) <= budget and mask not in sizes[:place]]
            best = sorted(kept, key=lambda place: (-ratios[place][by == "users"], place))[:count]
            if not best:
                refused += 1
                with pytest.raises(BudgetError, match=f"No mask of this search keeps a sparsity of {sparsity:g}"):
                    retraining.options(sparsity)
                continue
            expected = [("search", sizes[place], ratios[place][0]) for place in best]
            least = int(budget) // data.n
            popular = set(by_degree[: int(budget) - data.n * least])
            plain, filled = [least] * data.n, [least + (row in popular) for row in range(data.n)]
            for mask in [plain, filled] if include_equal else []:
                if mask not in [other for _, other, _ in expected]:
                    expected.append(("equal", mask, None))
            options = retraining.options(sparsity)
            assert [(option.origin, option.mask.sizes.tolist(), option.short_ratio) for option in options] == expected
        assert 0 < refused < 20

    def test_the_settings_of_the_retraining_choose_how_many(self, start: Start) -> None:
        for count, places in ((None, [4, 2, 1]), (1, [4]), (9, [4, 2, 1, 5])):
            options = start(candidates=count).options(0.9)
            assert [option.where for option in options if option.origin == "search"] == [
                f"episode 1, iteration {place}, lane 0" for place in places
            ]

    def test_a_mask_stands_once(self, start: Start, planted: Planted, candidate: Call) -> None:
        """Also where the search has found equal sizes by itself, which are then its own."""
        n = planted.data.n
        seen = [candidate(np.full(n, 3), 0.5), candidate(np.ones(n), 0.4, 2), candidate(np.full(n, 3), 0.5, 3)]
        options = start(seen).options(0.8)
        assert [(option.origin, option.mask.sizes.max()) for option in options] == [
            ("search", 3),
            ("search", 1),
            ("equal", 4),
        ]
        assert len({option.key for option in options}) == 3

    def test_no_mask_keeps_the_budget(self, start: Start) -> None:
        with pytest.raises(BudgetError) as caught:
            start().options(0.93)
        assert str(caught.value) == (
            "No mask of this search keeps a sparsity of 0.93: the sparsest one visited has 0.9125 (episode 1, "
            "iteration 1, lane 0). Expected one at least as sparse. Search with a larger --memory-weight or more "
            "episodes, or with --budget-mode target --targets 0.93; or project the best mask to the budget with "
            "--project."
        )

    def test_a_search_at_other_budgets_says_which(self, start: Start, config: SearchConfig) -> None:
        changed = config.model_copy(update={"sparsity": (0.5, 0.75)})
        with pytest.raises(BudgetError) as caught:
            start(config=changed).options(0.93)
        assert str(caught.value) == (
            "No mask of this search keeps a sparsity of 0.93: it searched at 0.5, 0.75. Expected one of these. Search "
            "with --sparsity 0.93 for the other, or project the best mask to it with --project."
        )

    def test_buckets_that_leave_nothing_are_said_as_such(self, start: Start, config: SearchConfig) -> None:
        changed = config.model_copy(update={"candidate_buckets": True})
        with pytest.raises(BudgetError) as caught:
            start(config=changed).options(0.8)
        assert str(caught.value) == (
            "No mask of this search serves a sparsity of 0.8 alone: each that keeps it also keeps a larger one of 0.8, "
            "0.9, and --candidate-buckets gives it to the largest. Expected one between the two. Retrain for the "
            "larger sparsity, or search without --candidate-buckets."
        )

    def test_a_search_without_masks(self, start: Start, planted: Planted, tmp_path: Path, candidate: Call) -> None:
        only_equal = [candidate(np.full(planted.data.n, 2), 0.9, 1, "equal")]
        for project in (False, True):
            with pytest.raises(BudgetError) as caught:
                start(only_equal, project=project).options(0.8)
            assert str(caught.value).replace(str(tmp_path), "TMP") == (
                "TMP/run holds no mask of a search; one finished iteration or more was expected. Run `ciess search` "
                "with --resume first."
            )

    def test_a_budget_below_one_dimension_a_row(self, start: Start) -> None:
        with pytest.raises(BudgetError, match="every row keeps at least 1"):
            start(project=True).options(0.95)

    def test_projection(self, start: Start) -> None:
        """Only where no mask keeps the budget; it uses the budget to the last parameter and keeps the order."""
        retraining = start(project=True)
        assert {option.origin for option in retraining.options(0.9)} == {"search", "equal"}
        options = [option for option in retraining.options(0.93) if option.origin != "equal"]
        best = sorted((one for one in retraining.visited if one.origin == "search"), key=lambda one: -one.quality_ratio)
        assert [option.where for option in options] == [f"{one.where}, projected" for one in best[:3]]
        assert [option.short_ratio for option in options] == [0.98, 0.7, 0.65]
        for option, one in zip(options, best[:3], strict=True):
            assert option.origin == PROJECTED
            assert option.mask.kept == int((1 - Fraction("0.93")) * option.mask.total)
            groups = [option.mask.sizes[one.mask.sizes == size] for size in np.unique(one.mask.sizes)]
            assert all(lower.max() <= higher.min() for lower, higher in itertools.pairwise(groups))
