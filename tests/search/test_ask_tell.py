import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_searches import (
    MAX_SIZE,
    N_USERS,
    Fitter,
    N,
    Spied,
    bits,
    contents,
    finish,
    fitted,
    in_order,
    proposed,
    small,
    world,
)

from ciess.agent.td3 import TD3
from ciess.devices import cpu_threads
from ciess.errors import BudgetError, FitError, SearchError
from ciess.search.proposals import Outcome, Proposal
from ciess.search.search import AGENT_THREADS, Search


class TestAskAndTell:
    @pytest.mark.parametrize("lanes", [1, 3])
    def test_a_round_is_a_proposal_a_lane(self, lanes: int) -> None:
        search = Search(small(lanes=lanes, episodes=2 * lanes), world())
        assert (search.rounds, search.fits) == (6, 6 * lanes)
        for turn in range(2):
            for iteration in (1, 2, 3):
                asked = search.ask()
                assert [proposal.slot for proposal in asked] == [
                    (lane, turn * lanes + lane + 1, iteration) for lane in range(lanes)
                ]
                for proposal in asked:
                    assert not search.done
                    search.tell(fitted(proposal))
        assert search.done
        assert search.ask() == []

    def test_sizes_cross_the_wire_as_int16_in_1_to_max_size(self) -> None:
        for proposal in proposed(Search(small(), world())):
            assert (proposal.sizes.dtype, proposal.sizes.shape) == (np.int16, (N,))
            assert 1 <= proposal.sizes.min() <= proposal.sizes.max() <= MAX_SIZE

    def test_asking_again_gives_the_same_proposals_without_the_told_ones(self) -> None:
        search = Search(small(lanes=3, episodes=3), world())
        for _ in range(search.rounds):
            first = {proposal.slot: bits(proposal.sizes) for proposal in search.ask()}
            assert {proposal.slot: bits(proposal.sizes) for proposal in search.ask()} == first
            for told in (1, 0):
                outcome = fitted(search.ask()[told])
                search.tell(outcome)
                del first[outcome.slot]
                assert {proposal.slot: bits(proposal.sizes) for proposal in search.ask()} == first
            search.tell(fitted(search.ask()[0]))

    def test_asking_again_costs_nothing(self, spied: Spied) -> None:
        search = Search(small(lanes=2), world())
        search.tell(fitted(search.ask()[0]))
        calls = len(spied.calls)
        search.ask()
        assert len(spied.calls) == calls == 4

    def test_lanes_explore_apart(self) -> None:
        first, second = Search(small(lanes=2), world()).ask()
        assert (first.sizes != second.sizes).any()

    def test_fits_done_counts_told_outcomes(self) -> None:
        search = Search(small(lanes=2, sparsities=(0.6,), include_equal=True), world())
        for told in range(search.fits):
            assert (search.fits_done, search.done) == (told, False)
            search.tell(fitted(search.ask()[0]))
        assert (search.fits_done, search.done) == (search.fits, True)

    def test_telling_twice_changes_nothing(self) -> None:
        """Also in a later round, after the last, for equal sizes, and whatever the second outcome says."""
        search = Search(small(lanes=2, sparsities=(0.6,), include_equal=True), world())
        told: list[Outcome] = []
        while proposals := search.ask():
            for proposal in proposals:
                outcome = fitted(proposal)
                assert search.tell(outcome)
                told.append(outcome)
                before = contents(search)
                for known in told:
                    assert not search.tell(known)
                    assert not search.tell(dataclasses.replace(known, quality=known.quality[:2] + 7))
                assert contents(search) == before

    @pytest.mark.parametrize("lanes", [1, 2, 3, 4])
    @given(st.data())
    @settings(max_examples=8)
    def test_the_order_of_telling_changes_nothing(self, lanes: int, data: st.DataObject) -> None:
        search = Search(small(lanes=lanes, episodes=lanes, include_equal=True), world())
        while proposals := search.ask():
            for proposal in data.draw(st.permutations(proposals)):
                search.tell(fitted(proposal))
        assert contents(search) == contents(in_order(lanes))
        assert [candidate.where for candidate in search.candidates(0.5)] == [
            candidate.where for candidate in in_order(lanes).candidates(0.5)
        ]

    def test_telling_without_asking(self) -> None:
        """As a driver does that asked before it was restarted."""
        search = Search(small(), world())
        assert Search(small(), world()).tell(fitted(search.ask()[0]))

    @pytest.mark.parametrize(
        ("rounds", "slot"),
        [
            (0, (0, 1, 2)),  # the next iteration
            (0, (0, 3, 1)),  # the next episode
            (0, (1, 1, 1)),  # another lane's
            (0, (2, 1, 1)),
            (0, (-1, 0, 1)),
            (0, (0, 1, 0)),
            (0, (0, 0, 1)),  # equal sizes, where there are none
            (4, (0, 1, 4)),
            (4, (1, 1, 1)),
            (4, (0, -1, 1)),
            (4, (0, 3, 3)),
            (4, (0, 2, 1)),  # the episode of the other lane
            (4, (2, 3, 1)),
            (4, (-1, 2, 1)),
            (4, (0, 0, 1)),
            (6, (0, 5, 1)),
        ],
    )
    def test_an_outcome_of_what_was_not_asked_is_refused(self, rounds: int, slot: tuple[int, int, int]) -> None:
        search = Search(small(lanes=2, episodes=4), world())
        for _ in range(rounds):
            for proposal in search.ask():
                search.tell(fitted(proposal))
        before = contents(search)
        with pytest.raises(SearchError, match="Found an outcome for"):
            search.tell(Outcome(*slot, fitted(Proposal(*slot, np.full(N, 4, np.int16))).quality))
        assert contents(search) == before

    @pytest.mark.parametrize("slot", [(1, 0, 1), (0, 0, 0), (0, 0, 3)])
    @pytest.mark.parametrize("rounds", [0, 1])
    def test_so_is_one_of_equal_sizes_that_were_not_asked(self, rounds: int, slot: tuple[int, int, int]) -> None:
        search = Search(small(lanes=2, include_equal=True, sparsities=(0.6,)), world())
        for proposal in search.ask() * rounds:
            search.tell(fitted(proposal))
        with pytest.raises(SearchError, match="Found an outcome for"):
            search.tell(Outcome(*slot, fitted(Proposal(*slot, np.full(N, 4, np.int16))).quality))

    def test_the_refusal_names_what_was_asked(self) -> None:
        quality = np.full(N_USERS, 0.5, np.float32)
        search = Search(small(lanes=2), world())
        with pytest.raises(SearchError) as caught:
            search.tell(Outcome(0, 2, 1, quality))
        assert str(caught.value) == (
            "Found an outcome for (lane, episode, iteration) (0, 2, 1), but expected one of (0, 1, 1), (1, 2, 1). "
            "Tell outcomes of what ask() gave."
        )
        with pytest.raises(SearchError, match=r"but expected none, as the search is done\. Tell outcomes of what"):
            finish(search).tell(Outcome(0, 3, 1, quality))

    @pytest.mark.parametrize(
        ("quality", "found"),
        [
            (np.full(N_USERS - 1, 0.5), "an array of shape (10,)"),
            (np.full((N_USERS, 1), 0.5), "an array of shape (11, 1)"),
            (np.empty(0), "an array of shape (0,)"),
            (np.array([0.5] * 8 + [np.nan] * 3), "3 values such as nan"),
            (np.array([0.5] * 10 + [1.00001]), "1 value such as 1.00001"),
            (np.array([0.5] * 9 + [-0.25, np.inf]), "2 values such as -0.25"),
        ],
    )
    def test_qualities_that_are_none_are_refused(self, quality: npt.NDArray[np.float64], found: str) -> None:
        search = Search(small(lanes=2), world())
        search.tell(fitted(search.ask()[1]))
        before = contents(search)
        with pytest.raises(SearchError) as caught:
            search.tell(Outcome(0, 1, 1, quality.astype(np.float32)))
        assert str(caught.value) == (
            f"The outcome of (lane, episode, iteration) (0, 1, 1) holds {found}. Expected 11 numbers in [0, 1], one a "
            "user. Tell eval(e_u) of Eq. 8, as a fit of the proposed sizes finds it on this search's data."
        )
        assert contents(search) == before
        assert search.tell(fitted(search.ask()[0]))

    def test_what_rounding_puts_above_1_counts_as_1(self) -> None:
        def perfect(most: float) -> Fitter:
            return lambda proposal: Outcome(*proposal.slot, np.full(N_USERS, most, np.float32))

        above = np.nextafter(np.float32(1), np.float32(2))
        found, expected = (finish(Search(small(), world()), perfect(most)) for most in (float(above), 1.0))
        assert contents(found) == contents(expected)

    def test_the_type_of_the_qualities_changes_nothing(self) -> None:
        def in_float64(proposal: Proposal) -> Outcome:
            outcome = fitted(proposal)
            return dataclasses.replace(outcome, quality=outcome.quality.astype(np.float64))

        def in_a_list(proposal: Proposal) -> Outcome:
            outcome = fitted(proposal)
            return dataclasses.replace(outcome, quality=outcome.quality.tolist())

        expected = contents(finish(Search(small(lanes=2), world())))
        for fit in (in_float64, in_a_list):
            assert contents(finish(Search(small(lanes=2), world()), fit)) == expected

    def test_what_the_teller_does_with_its_array_later_changes_nothing(self) -> None:
        shared = np.empty(N_USERS, np.float32)

        def reused(proposal: Proposal) -> Outcome:
            outcome = fitted(proposal)
            shared[:] = outcome.quality
            return dataclasses.replace(outcome, quality=shared)

        expected = contents(finish(Search(small(lanes=2), world())))
        assert contents(finish(Search(small(lanes=2), world()), reused)) == expected

    def test_equal_seeds_give_equal_searches_and_others_others(self) -> None:
        first, again, other = (proposed(Search(small(seed=seed), world())) for seed in (1, 1, 2))
        assert [bits(proposal.sizes) for proposal in first] == [bits(proposal.sizes) for proposal in again]
        for one, another in zip(first, other, strict=True):
            assert (one.sizes != another.sizes).any()

    def test_nothing_depends_on_the_global_random_state(self) -> None:
        expected = contents(finish(Search(small(), world())))
        torch.manual_seed(7)
        before = torch.get_rng_state()
        assert contents(finish(Search(small(), world()))) == expected
        assert torch.get_rng_state().equal(before)

    def test_agents_run_with_one_thread_whatever_the_fits_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found: set[int] = set()

        def spy(name: str) -> Callable[..., Any]:
            method = getattr(TD3, name)

            def seen(*arguments: Any) -> Any:
                found.add(torch.get_num_threads())
                return method(*arguments)

            return seen

        for name in ("act", "values", "update"):
            monkeypatch.setattr(TD3, name, spy(name))
        with cpu_threads(2):
            finish(Search(small(), world()))
            assert torch.get_num_threads() == 2
        assert found == {AGENT_THREADS} == {1}

    @pytest.mark.parametrize("budgets", [{"sparsities": (0.5, 0.95)}, {"targets": (0.95,), "budget_mode": "target"}])
    @pytest.mark.parametrize("include_equal", [True, False])
    def test_a_budget_that_cannot_be_met_is_refused(self, budgets: dict[str, Any], include_equal: bool) -> None:
        with pytest.raises(BudgetError) as caught:
            Search(small(include_equal=include_equal, **budgets), world())
        assert str(caught.value) == (
            "A sparsity of 0.95 leaves 15 parameters for 19 rows, but every row keeps at least 1 of its 16 dimensions. "
            "Choose a sparsity of at most 0.9375."
        )

    def test_agents_that_break_down_are_named(self) -> None:
        agent = {"critic_learning_rate": 1e30, "gradient_steps": 3}
        expected = (
            r"The loss of the critics of users is (inf|nan) after episode 1, iteration 1, lane 0; a finite number was "
            r"expected\. Choose lower learning rates of the agents, or a smaller memory weight\."
        )
        with pytest.raises(FitError, match=f"^{expected}$"):
            finish(Search(small(agent=agent), world()))
