from typing import Any

import numpy as np
import pytest
from tiny_searches import CLOCKS, MAX_SIZE, N_USERS, TWO_TARGETS, N, Spied, bits, finish, fitted, proposed, small, world

from ciess import masks
from ciess.masks.mask import PrefixMask
from ciess.search.proposals import Outcome, Proposal
from ciess.search.search import Search


class TestCandidates:
    def test_what_was_visited_is_kept_with_what_its_fit_found(self) -> None:
        search = Search(small(lanes=2, include_equal=True, sparsities=(0.6,)), world())
        found = proposed(search)
        assert len(search.visited) == len(found) == search.fits
        for candidate, proposal in zip(search.visited, found, strict=True):
            quality = fitted(proposal).quality
            ratios = world().quality_ratio(world().quality(quality)).astype(np.float64)
            assert (candidate.lane, candidate.episode, candidate.iteration) == proposal.slot
            assert candidate.origin == ("search" if proposal.episode else "equal")
            np.testing.assert_array_equal(candidate.mask.sizes, proposal.sizes)
            assert candidate.sparsity == float(masks.sparsity(PrefixMask(proposal.sizes, MAX_SIZE)))
            assert candidate.quality_ratio == pytest.approx(ratios.mean(), rel=1e-12)
            assert candidate.users_quality_ratio == pytest.approx(ratios[:N_USERS].mean(), rel=1e-12)
            counted = np.delete(quality.astype(np.float64), 5)
            assert candidate.quality == pytest.approx(counted.mean(), rel=1e-12)

    @pytest.mark.parametrize("settings", [{}, {"candidate_quality": "users"}, {"candidate_buckets": True}])
    def test_the_best_of_a_budget(self, settings: dict[str, Any]) -> None:
        search = finish(Search(small(episodes=12, candidates=4, memory_weight=1.0, **settings), world()))
        column = "users_quality_ratio" if settings.get("candidate_quality") == "users" else "quality_ratio"
        for budget in (0.5, 0.75):
            kept = [c for c in search.visited if c.sparsity >= budget]
            if settings.get("candidate_buckets") and budget == 0.5:
                kept = [c for c in kept if c.sparsity < 0.75]
            expected = sorted((getattr(c, column) for c in kept), reverse=True)
            assert len(expected) > 4
            assert [getattr(c, column) for c in search.candidates(budget)] == expected[:4]
            assert [getattr(c, column) for c in search.candidates(budget, count=2)] == expected[:2]
            assert search.candidates(budget, count=0) == []

    def test_in_target_mode_every_fit_is_a_candidate_of_its_target(self) -> None:
        search = finish(Search(small(budget_mode="target", targets=(0.75,), candidates=99), world()))
        assert len(search.candidates(0.75)) == search.fits


class TestEqualSizes:
    BUDGETS = (0.6, 0.5, 0.61, 0.6)

    def test_round_zero_holds_equal_sizes_of_each_budget_once(self) -> None:
        """Of 304 entries 0.5 keeps 8 x 19 and nothing is left to fill; 0.6 and 0.61 keep 6 x 19, and 7 and 4 more."""
        asked = Search(small(include_equal=True, sparsities=self.BUDGETS), world()).ask()
        assert [proposal.slot for proposal in asked] == [(0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 0, 4)]
        popular = np.argsort(-world().degrees, kind="stable")
        expected = []
        for size, more in ((6, 0), (6, 7), (8, 0), (6, 4)):
            sizes = np.full(N, size, np.int16)
            sizes[popular[:more]] += 1
            expected.append(bits(sizes))
        assert [bits(proposal.sizes) for proposal in asked] == expected

    def test_the_budgets_of_target_mode_are_the_targets(self) -> None:
        search = Search(small(include_equal=True, budget_mode="target", targets=(0.61, 0.6)), world())
        assert [int(proposal.sizes.sum()) for proposal in search.ask()] == [6 * N, 6 * N + 4, 6 * N + 7]

    def test_without_them_the_search_starts_at_once(self) -> None:
        search = Search(small(include_equal=False), world())
        assert [proposal.slot for proposal in search.ask()] == [(0, 1, 1)]
        assert search.fits == search.rounds == 6

    @pytest.mark.parametrize("variant", [{}, TWO_TARGETS | {"lanes": 2}])
    def test_the_search_itself_is_the_same_with_and_without(self, variant: dict[str, Any], spied: Spied) -> None:
        config = small(**variant | {"include_equal": True})
        search, without = Search(config, world()), Search(small(**variant), world())
        equal = search.ask()
        for proposal in equal:
            search.tell(fitted(proposal))
        assert spied.calls == []
        assert search.history.num_rows == 0
        assert search.last == []
        assert search.prices == without.prices
        assert (search.rounds, search.fits) == (without.rounds, without.fits + len(equal))
        found, expected = proposed(search), proposed(without)
        assert [bits(proposal.sizes) for proposal in found] == [bits(proposal.sizes) for proposal in expected]
        clocks = list(CLOCKS)
        assert search.history.drop_columns(clocks) == without.history.drop_columns(clocks)
        arrays, others = search.state_dict()["arrays"], without.state_dict()["arrays"]
        for name in arrays:
            if not name.startswith("visited."):
                assert bits(arrays[name]) == bits(others[name])

    def test_they_are_kept_but_are_no_candidates_of_the_search(self) -> None:
        """However good they are."""

        def better_equal(proposal: Proposal) -> Outcome:
            quality = np.full(N_USERS, 0.1 if proposal.episode else 0.9, np.float32)
            return Outcome(*proposal.slot, quality)

        search = finish(Search(small(include_equal=True, candidates=99, sparsities=(0.2,)), world()), better_equal)
        assert [candidate.origin for candidate in search.visited] == ["equal"] * 2 + ["search"] * 6
        assert len(search.candidates(0.2)) > 0
        assert {candidate.origin for candidate in search.candidates(0.2)} == {"search"}
