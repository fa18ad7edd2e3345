import copy
import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from ciess import masks
from ciess.agent.networks import actions_to_sizes, sizes_to_actions
from ciess.agent.policy import choose
from ciess.agent.replay import Replay
from ciess.agent.td3 import TD3
from ciess.config.search import SearchConfig
from ciess.data import Pairs
from ciess.devices import cpu_threads
from ciess.errors import BudgetError, FitError, SearchError
from ciess.masks.mask import PrefixMask
from ciess.search.environment import Environment
from ciess.search.proposals import Outcome, Proposal
from ciess.search.search import AGENT_THREADS, Search
from ciess.seeds import derive_seed
from ciess.storage.columns import HISTORY

N_USERS, N_ITEMS, MAX_SIZE = 11, 8, 16
N = N_USERS + N_ITEMS
CLOCKS = ("propose_seconds", "walk_seconds", "update_seconds", "agent_seconds", "checkpoint_seconds")
"""Columns that a clock fills; those of the fit come with its outcome."""

Sizes = npt.NDArray[np.int16]
Fitter = Callable[[Proposal], Outcome]


def small(**changes: Any) -> SearchConfig:
    agent = {"hidden": 16, "batch_size": 32} | changes.pop("agent", {})
    plain: dict[str, Any] = {
        "episodes": 2,
        "iterations": 3,
        "max_size": MAX_SIZE,
        "include_equal": False,
        "sparsities": (0.5, 0.75),
        "device": "cpu",
        "threads": 1,
        "agent": agent,
    }
    return SearchConfig(**plain | changes)


@functools.cache
def world(zero_reference: str = "one", interactions: bool = True) -> Environment:
    """A user and an item for which the reference scores 0, a user without validation items, an untrained item."""
    generator = np.random.default_rng(3)
    met = generator.random((N_USERS, N_ITEMS)) < np.linspace(0.8, 0.1, N_ITEMS)
    met[:, -1] = False
    met[:, -2] = np.arange(N_USERS) == 4
    train = Pairs.sorted(*np.nonzero(met)) if interactions else Pairs.none()
    reference = generator.uniform(0.2, 0.6, N).astype(np.float32)
    reference[[4, N - 2]] = 0
    return Environment(train, N_USERS, N_ITEMS, MAX_SIZE, reference, np.arange(N) != 5, zero_reference)


def fitted(proposal: Proposal, environment: Environment | None = None) -> Outcome:
    """Stands for a short fit: quality grows with a user's own size and with those of its items."""
    known = (environment or world()).train
    gain = proposal.sizes / (proposal.sizes + 4.0)
    sums = np.bincount(known.users, weights=gain[N_USERS + known.items], minlength=N_USERS)
    of_items = sums / np.maximum(1, np.bincount(known.users, minlength=N_USERS))
    quality = np.linspace(0.2, 0.6, N_USERS) * (gain[:N_USERS] + of_items) / 2
    seconds = float(proposal.sizes.sum()) / 8
    return Outcome(*proposal.slot, quality.astype(np.float32), seconds, seconds / 4)


def finish(search: Search, fit: Fitter = fitted) -> Search:
    while proposals := search.ask():
        for proposal in proposals:
            search.tell(fit(proposal))
    return search


def proposed(search: Search, fit: Fitter = fitted) -> list[Proposal]:
    """Every proposal of a search that is told all of them."""
    found: list[Proposal] = []
    while proposals := search.ask():
        found += proposals
        for proposal in proposals:
            search.tell(fit(proposal))
    return found


def bits(values: npt.NDArray[Any]) -> tuple[Any, ...]:
    return values.dtype.str, values.shape, values.tobytes()


def contents(search: Search) -> tuple[Any, ...]:
    """All that two equal searches have in common, in a form that compares by bits."""
    state = search.state_dict()
    values = json.loads(json.dumps(state["values"], allow_nan=False))
    for row in values["rows"]:
        for clock in CLOCKS:
            row.pop(clock)
    values["told"].sort()
    arrays = {name: bits(values) for name, values in state["arrays"].items() if name != "told.quality"}
    by_place = {proposal.slot: bits(proposal.sizes) for proposal in search.ask()}
    return arrays, values, by_place, search.history.drop_columns(list(CLOCKS))


def through_files(state: dict[str, Any]) -> dict[str, Any]:
    """What is left of a state when it was written and read again."""
    return {
        "arrays": load(save(state["arrays"])),
        "values": json.loads(json.dumps(state["values"], allow_nan=False)),
    }


@dataclasses.dataclass
class Spied:
    """Calls of the primitives, in order: (name, side, arguments)."""

    calls: list[tuple[str, str, Any]]

    def of(self, name: str, side: str | None = None) -> list[Any]:
        return [arguments for found, by, arguments in self.calls if found == name and side in (None, by)]


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    """Copies of what goes into Replay.add and TD3.update, and comes out of TD3.act; users always come first."""
    spied = Spied([])
    sides: dict[int, str] = {}

    def spy(owner: type, name: str, keep: Callable[..., Any]) -> None:
        method = getattr(owner, name)

        def seen(self: Any, *arguments: Any) -> Any:
            known = [other for other in sides if other[0] == owner]
            side = sides.setdefault((owner, id(self)), ("users", "items")[len(known) % 2])
            result = method(self, *arguments)
            spied.calls.append((name, side, keep(result, *arguments)))
            return result

        monkeypatch.setattr(owner, name, seen)

    spy(Replay, "add", lambda _, columns, label=0: ({k: v.copy() for k, v in columns.items()}, label))
    spy(TD3, "update", lambda _, states, actions, rewards, after, __: (states, actions, rewards, after))
    spy(TD3, "act", lambda actions, _: actions.copy())
    return spied


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


@functools.cache
def in_order(lanes: int) -> Search:
    return finish(Search(small(lanes=lanes, episodes=lanes, include_equal=True), world()))


TWO_TARGETS = {"budget_mode": "target", "targets": (0.5, 0.75)}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ou noise": {"noise": "ou"},
    "shared ou noise": {"noise": "ou", "shared_noise": True},
    "noise after the choice": {"noise_place": "after"},
    "no walk": {"random_walk": False, "noise": "uniform"},
    "two lanes, equal sizes": {"lanes": 2, "include_equal": True},
    "two targets": TWO_TARGETS | {"lanes": 2, "memory_weight_rate": 0.7},
    "two targets in turn": TWO_TARGETS | {"memory_weight_rate": 0.7, "include_equal": True},
    "three gradient steps": {"agent": {"gradient_steps": 3}},
    "raw quality": {"reward_quality": "raw", "lanes": 2},
    "short replay": {"agent": {"replay_iterations": 3}, "lanes": 2},
    "no bootstrap": {"agent": {"gamma": 0.0, "walk_critic": "min"}},
    "untrained items": {},
}


def setting(variant: str) -> tuple[SearchConfig, Environment]:
    return small(**VARIANTS[variant]), world(interactions=variant != "untrained items")


@functools.cache
def undisturbed(variant: str) -> Search:
    config, environment = setting(variant)
    return finish(Search(config, environment), lambda proposal: fitted(proposal, environment))


class TestState:
    @pytest.mark.parametrize("variant", VARIANTS)
    @given(st.sets(st.integers(0, 12)), st.integers(0, 99))
    @settings(max_examples=6)
    def test_an_interrupted_search_ends_with_the_same_bits(self, variant: str, stops: set[int], seed: int) -> None:
        """Stopped after any tells, also in the middle of a round; `stops` counts outcomes, told by chance."""
        config, environment = setting(variant)
        generator = np.random.default_rng(seed)
        search = Search(config, environment)
        while proposals := search.ask():
            if search.fits_done in stops:
                state = through_files(search.state_dict())
                before, search = contents(search), restored(state, config, environment)
                assert contents(search) == before
                proposals = search.ask()
            search.tell(fitted(proposals[generator.integers(len(proposals))], environment))
        assert contents(search) == contents(undisturbed(variant))

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_a_search_that_is_done_stays_done(self, variant: str) -> None:
        search = restored(through_files(undisturbed(variant).state_dict()), *setting(variant))
        assert search.done
        assert search.ask() == []
        assert contents(search) == contents(undisturbed(variant))
        assert search.last == undisturbed(variant).last
        assert [bits(c.mask.sizes) for c in search.candidates(0.5)] == [
            bits(c.mask.sizes) for c in undisturbed(variant).candidates(0.5)
        ]

    def test_a_state_is_a_snapshot(self) -> None:
        """Neither the search it was taken from nor the one that took it up changes it."""
        config, environment = setting("two targets")
        search = Search(config, environment)
        for _ in range(4):
            search.tell(fitted(search.ask()[0]))
        search.tell(fitted(search.ask()[1]))
        state = search.state_dict()
        before = copy.deepcopy(state)
        finish(search).record_checkpoint(1.0)
        finish(restored(state, config, environment)).record_checkpoint(1.0)
        assert state["values"] == before["values"]
        assert {name: bits(values) for name, values in state["arrays"].items()} == {
            name: bits(values) for name, values in before["arrays"].items()
        }

    @pytest.mark.parametrize("variant", ["plain", "two lanes, equal sizes", "two targets in turn"])
    def test_episodes_can_be_added(self, variant: str) -> None:
        longer = small(**VARIANTS[variant] | {"episodes": 4})
        search = restored(through_files(undisturbed(variant).state_dict()), longer, world())
        assert not search.done
        assert contents(finish(search)) == contents(finish(Search(longer, world())))

    def test_a_state_takes_the_place_of_another(self) -> None:
        """Whether the other search is done or in the middle of a round."""
        config, environment = setting("two targets")
        search, done, other = (Search(config, environment) for _ in range(3))
        for _ in range(3):
            search.tell(fitted(search.ask()[0]))
        finish(done)
        other.tell(fitted(other.ask()[1]))
        for target in (done, other):
            target.load_state_dict(search.state_dict())
            assert contents(target) == contents(search)


def restored(state: dict[str, Any], config: SearchConfig, environment: Environment) -> Search:
    search = Search(config, environment)
    search.load_state_dict(state)
    return search


def algorithm_1(config: SearchConfig, environment: Environment) -> list[Sizes]:
    """Algorithm 1 as it is printed: one episode after the other, one update of each side an iteration."""
    sides = {"users": slice(0, N_USERS), "items": slice(N_USERS, N)}
    agents = {side: TD3(config.agent, 3, MAX_SIZE, derive_seed(config.seed, "networks", side)) for side in sides}
    columns = {"sizes_before": np.int16, "ratios_before": np.float32, "sizes": np.int16, "ratios": np.float32}
    types = {name: np.dtype(dtype) for name, dtype in (columns | {"raw": np.float32}).items()}
    replays = {
        side: Replay(config.agent.replay_iterations, types, environment.learnable[rows]) for side, rows in sides.items()
    }
    fits = []
    for episode in range(1, config.episodes + 1):
        sizes, ratios, noise = np.full(N, MAX_SIZE, np.int16), np.ones(N, np.float32), np.zeros(N)
        for iteration in range(1, config.iterations + 1):
            slot = (0, episode, iteration)
            chosen = {
                side: choose(
                    *(agents[side], config, environment.state(rows, sizes[rows], ratios[rows])),
                    *(noise[rows], side, slot),
                )
                for side, rows in sides.items()
            }
            before, ratios_before = sizes, ratios
            sizes = np.concatenate([chosen["users"].chosen, chosen["items"].chosen])
            noise = np.concatenate([chosen["users"].noise, chosen["items"].noise])
            fits.append(sizes)
            quality = environment.quality(fitted(Proposal(*slot, sizes)).quality)
            ratios = environment.quality_ratio(quality)
            for side, rows in sides.items():
                replays[side].add(
                    {
                        "sizes_before": before[rows],
                        "ratios_before": ratios_before[rows],
                        "sizes": sizes[rows],
                        "ratios": ratios[rows],
                        "raw": quality[rows],
                    }
                )
                for step in range(config.agent.gradient_steps):
                    seed = derive_seed(config.seed, "replay", side, *slot, step)
                    generator = np.random.Generator(np.random.PCG64(seed))
                    entities, drawn = replays[side].sample(config.agent.batch_size, generator)
                    gain = drawn["raw" if config.reward_quality == "raw" else "ratios"]
                    agents[side].update(
                        environment.state(rows.start + entities, drawn["sizes_before"], drawn["ratios_before"]),
                        sizes_to_actions(drawn["sizes"], MAX_SIZE),
                        environment.reward(gain, drawn["sizes"], config.memory_weight),
                        environment.state(rows.start + entities, drawn["sizes"], drawn["ratios"]),
                        generator,
                    )
    return fits


class TestAlgorithm1:
    @pytest.mark.parametrize(
        "variant",
        [
            {},
            {"noise": "ou", "memory_weight": 0.2, "seed": 5},
            {"reward_quality": "raw", "noise": "uniform", "walk_weights": "inverse"},
            {"agent": {"gradient_steps": 3, "replay_iterations": 2}},
            {"random_walk": False, "shared_noise": True},
        ],
    )
    def test_one_lane_is_algorithm_1(self, variant: dict[str, Any]) -> None:
        config = small(**variant)
        with cpu_threads(1):
            expected = algorithm_1(config, world())
        assert len(expected) == 6
        found = proposed(Search(config, world()))
        assert [bits(proposal.sizes) for proposal in found] == [bits(sizes) for sizes in expected]

    @pytest.mark.parametrize("lanes", [1, 2])
    def test_every_episode_starts_from_the_full_table(self, lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """s^0 is d_max with q = 1; later states are the sizes and ratios of the lane's iteration before."""
        environment = copy.copy(world())
        seen: list[tuple[Any, Sizes, npt.NDArray[np.float32]]] = []

        def spy(rows: slice, sizes: Sizes, ratios: npt.NDArray[np.float32], *target: Any) -> Any:
            seen.append((rows, sizes.copy(), ratios.copy()))
            return world().state(rows, sizes, ratios, *target)

        monkeypatch.setattr(environment, "state", spy)
        search = Search(small(lanes=lanes, episodes=2 * lanes), environment)
        before: dict[int, tuple[Sizes, Any]] = {}
        start = np.full(N, MAX_SIZE, np.int16), np.ones(N, np.float32)
        for _ in range(search.rounds):
            seen.clear()
            asked = search.ask()
            observed = list(seen)
            assert len(observed) == 2 * lanes
            for proposal in asked:
                sizes, ratios = start if proposal.iteration == 1 else before[proposal.lane]
                for rows, *found in observed[2 * proposal.lane : 2 * proposal.lane + 2]:
                    np.testing.assert_array_equal(found[0], sizes[rows])
                    np.testing.assert_array_equal(found[1], ratios[rows])
                outcome = fitted(proposal)
                search.tell(outcome)
                ratio = environment.quality_ratio(environment.quality(outcome.quality))
                before[proposal.lane] = proposal.sizes, ratio

    @pytest.mark.parametrize("lanes", [1, 2])
    def test_a_transition_is_state_size_quality_and_next_state(self, lanes: int, spied: Spied) -> None:
        found = proposed(Search(small(lanes=lanes, episodes=2 * lanes, reward_quality="raw"), world()))
        by_place = {proposal.slot: proposal for proposal in found}
        quality = {slot: world().quality(fitted(proposal).quality) for slot, proposal in by_place.items()}
        for side, rows in world().sides.items():
            added = spied.of("add", side)
            assert len(added) == len(found)
            for (columns, label), proposal in zip(added, found, strict=True):
                lane, episode, iteration = proposal.slot
                earlier = (lane, episode, iteration - 1)
                sizes = by_place[earlier].sizes if iteration > 1 else np.full(N, MAX_SIZE)
                ratios = world().quality_ratio(quality[earlier]) if iteration > 1 else np.ones(N)
                expected = {
                    "sizes_before": sizes,
                    "ratios_before": ratios,
                    "sizes": proposal.sizes,
                    "ratios": world().quality_ratio(quality[proposal.slot]),
                    "raw": quality[proposal.slot],
                }
                assert set(columns) == set(expected)
                assert label == 0
                for name, values in expected.items():
                    np.testing.assert_array_equal(columns[name], values[rows])

    def test_lanes_are_learned_from_in_order(self, spied: Spied) -> None:
        """Whatever the order of telling: lane 0 is added and updated from before lane 1 is added."""
        search = Search(small(lanes=2, agent={"gradient_steps": 2}), world())
        while asked := search.ask():
            spied.calls.clear()
            search.tell(fitted(asked[1]))
            assert spied.calls == []
            search.tell(fitted(asked[0]))
            steps = ["update users"] * 2 + ["update items"] * 2
            names = [f"{name} {side}" for name, side, _ in spied.calls]
            assert names == ["add users", "add items", *steps] * 2
            added = [columns["sizes"] for columns, _ in spied.of("add", "users")]
            np.testing.assert_array_equal(added, [proposal.sizes[:N_USERS] for proposal in asked])

    @pytest.mark.parametrize("steps", [1, 4])
    @pytest.mark.parametrize("lanes", [1, 2])
    def test_every_told_fit_brings_the_gradient_steps(self, steps: int, lanes: int, spied: Spied) -> None:
        search = finish(Search(small(lanes=lanes, agent={"gradient_steps": steps}), world()))
        for side in ("users", "items"):
            assert len(spied.of("update", side)) == steps * search.fits
        assert all(len(states) == 32 for states, *_ in spied.of("update"))

    def test_gradient_steps_of_a_fit_draw_apart(self, spied: Spied) -> None:
        finish(Search(small(agent={"gradient_steps": 3}), world()))
        batches = [bits(after) for *_, after in spied.of("update")]
        assert len(set(batches)) == len(batches)

    def test_an_item_that_nobody_met_is_never_learned_from(self, spied: Spied) -> None:
        finish(Search(small(agent={"batch_size": 256}), world()))
        (unmet,) = np.flatnonzero(~world().learnable)
        popularity = world().popularity
        expected = set(popularity[N_USERS:unmet].tolist())
        assert popularity[unmet] not in expected
        assert {value for states, *_ in spied.of("update", "items") for value in states[:, 0].tolist()} == expected

    def test_a_side_without_anything_to_learn_from_is_not_updated(self, spied: Spied) -> None:
        environment = world(interactions=False)
        search = finish(Search(small(), environment), lambda proposal: fitted(proposal, environment))
        assert len(spied.of("update", "users")) == 6
        assert spied.of("update", "items") == []
        assert search.history["items_critic_loss"].null_count == 6
        assert search.history["users_critic_loss"].null_count == 0


class TestPenalty:
    def test_the_memory_weight_stays(self) -> None:
        search = finish(Search(small(memory_weight=0.3), world()))
        assert search.prices == [0.3]
        assert set(search.history["memory_weight"].to_pylist()) == {0.3}
        assert set(search.history["target_sparsity"].to_pylist()) == {None}

    def test_sizes_stay_as_the_walk_chose_them(self) -> None:
        history = finish(Search(small(), world())).history
        for side in ("users", "items"):
            assert history[f"{side}_size"] == history[f"{side}_walk_size"]

    def test_a_larger_memory_weight_leads_to_smaller_sizes(self) -> None:
        agent = {"gamma": 0.0, "gradient_steps": 30, "actor_learning_rate": 1e-2, "critic_learning_rate": 1e-2}
        wanted = []
        for weight in (0.0, 3.0):
            config = small(memory_weight=weight, agent=agent)
            wanted.append(finish(Search(config, world())).last[0])
        for side in ("users", "items"):
            small_weight, large_weight = (row[f"{side}_actor_size"] for row in wanted)
            assert large_weight < small_weight - 8


def prices_by_hand(config: SearchConfig, acted: list[npt.NDArray[np.float32]]) -> list[list[float]]:
    """Prices after each round, from the actions of users and items in the order of proposals."""
    sizes = [actions_to_sizes(actions, MAX_SIZE).astype(np.float64) for actions in acted]
    density = [(sizes[i].sum() + sizes[i + 1].sum()) / (N * MAX_SIZE) for i in range(0, len(sizes), 2)]
    prices = [[config.memory_weight] * len(config.targets)]
    for position in range(0, len(density), config.lanes):
        turn = position // config.lanes // config.iterations
        now = list(prices[-1])
        for label, target in enumerate(config.targets):
            wanted = [
                density[position + lane]
                for lane in range(config.lanes)
                if (turn * config.lanes + lane) % len(config.targets) == label
            ]
            if wanted:
                excess = sum(wanted) / len(wanted) / (1 - target) - 1
                now[label] *= math.exp(config.memory_weight_rate * max(-1.0, min(1.0, excess)))
        prices.append(now)
    return prices[1:]


class TestTarget:
    @pytest.mark.parametrize("variant", [{"targets": (0.75,)}, TWO_TARGETS, TWO_TARGETS | {"lanes": 2}])
    def test_every_proposal_meets_its_target_to_the_last_parameter(self, variant: dict[str, Any]) -> None:
        config = small(budget_mode="target", episodes=4, **{k: v for k, v in variant.items() if k != "budget_mode"})
        for proposal in proposed(Search(config, world())):
            target = config.targets[(proposal.episode - 1) % len(config.targets)]
            assert proposal.sizes.sum() == masks.budget(N, MAX_SIZE, target)
            assert 1 <= proposal.sizes.min() <= proposal.sizes.max() <= MAX_SIZE

    def test_projection_keeps_the_order_of_what_was_chosen(self) -> None:
        """The first proposal of a penalty search is what the first one in target mode was before its projection."""
        (chosen,) = Search(small(), world()).ask()
        (found,) = Search(small(budget_mode="target", targets=(0.8,)), world()).ask()
        expected = masks.project(chosen.sizes.astype(np.float64), MAX_SIZE, 0.8, world().degrees)
        np.testing.assert_array_equal(found.sizes, expected.sizes)
        assert (found.sizes != chosen.sizes).any()
        order = np.argsort(chosen.sizes, kind="stable")
        assert (np.diff(found.sizes[order])[np.diff(chosen.sizes[order]) > 0] >= 0).all()

    @pytest.mark.parametrize("rate", [0.0, 0.1, 0.9])
    @pytest.mark.parametrize(
        ("lanes", "targets"), [(1, (0.75,)), (3, (0.75,)), (1, (0.2, 0.9)), (2, (0.2, 0.9)), (3, (0.4, 0.55))]
    )
    def test_prices_follow_what_the_actors_want(
        self, lanes: int, targets: tuple[float, ...], rate: float, spied: Spied
    ) -> None:
        """Their output before noise, as a mean over the lanes of a target; a target without lanes keeps its price."""
        config = small(
            lanes=lanes, episodes=2 * lanes, budget_mode="target", targets=targets, memory_weight_rate=rate, noise="ou"
        )
        search = Search(config, world())
        found = []
        for _ in range(search.rounds):
            for proposal in search.ask():
                search.tell(fitted(proposal))
            found.append(list(search.prices))
        np.testing.assert_allclose(found, prices_by_hand(config, spied.of("act")), rtol=1e-12)
        before = [[config.memory_weight] * len(targets), *found]
        for row in search.history.to_pylist():
            turn = (row["episode"] - 1) // lanes
            label = targets.index(row["target_sparsity"])
            assert row["memory_weight"] == before[turn * config.iterations + row["iteration"] - 1][label]

    def test_a_price_rises_where_actors_want_too_much_and_falls_where_too_little(self) -> None:
        """First actors want about half of the table: more than twice of 0.1, and 0.5 / 0.8 of 0.8."""
        config = small(budget_mode="target", targets=(0.9, 0.2), lanes=2, iterations=1, memory_weight_rate=0.5)
        search = finish(Search(config, world()))
        assert search.prices[0] == pytest.approx(0.4 * math.exp(0.5))
        assert 0.4 * math.exp(-0.5) < search.prices[1] < 0.4

    def test_a_price_of_zero_stays(self) -> None:
        config = small(budget_mode="target", targets=(0.75,), memory_weight=0.0)
        assert finish(Search(config, world())).prices == [0.0]

    @pytest.mark.parametrize("variant", [{"targets": (0.75,)}, TWO_TARGETS, TWO_TARGETS | {"lanes": 2}])
    def test_rewards_are_those_of_the_transitions_target_and_the_price_of_today(
        self, variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = small(episodes=4, memory_weight_rate=1.0, **{"budget_mode": "target"} | variant)
        several = len(config.targets) > 1
        search = Search(config, world())
        used: set[tuple[float, ...]] = set()
        seen: set[float] = set()

        def update(self: TD3, states: Any, actions: Any, rewards: Any, after: Any, generator: Any) -> float:
            assert states.shape == after.shape == (32, 4 if several else 3)
            sizes = np.rint(after[:, 1] * (MAX_SIZE - 1) + 1).astype(np.int16)
            np.testing.assert_array_equal(actions, sizes_to_actions(sizes, MAX_SIZE))
            labels = np.zeros(32, np.int64)
            if several:
                np.testing.assert_array_equal(states[:, 3], after[:, 3])
                labels = np.abs(after[:, 3:] - np.array(config.targets)).argmin(axis=1)
                np.testing.assert_array_equal(after[:, 3], np.array(config.targets, np.float32)[labels])
            expected = after[:, 2] - np.array(search.prices)[labels] * (sizes / MAX_SIZE) ** 2
            np.testing.assert_allclose(rewards, expected, rtol=1e-5, atol=1e-6)
            used.add(tuple(search.prices))
            seen.update(labels.tolist())
            return 0.5

        monkeypatch.setattr(TD3, "update", update)
        finish(search)
        assert len(used) == search.rounds
        assert seen == set(range(len(config.targets)))

    def test_a_transition_carries_the_label_of_its_target(self, spied: Spied) -> None:
        found = proposed(Search(small(episodes=4, lanes=2, budget_mode="target", targets=(0.5, 0.6, 0.7)), world()))
        for side in ("users", "items"):
            labels = [label for _, label in spied.of("add", side)]
            assert labels == [(proposal.episode - 1) % 3 for proposal in found]

    def test_the_actors_are_shown_the_target_where_there_are_several(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shown: list[Any] = []
        method = TD3.act

        def act(self: TD3, states: npt.NDArray[np.float32]) -> Any:
            shown.append(states)
            return method(self, states)

        monkeypatch.setattr(TD3, "act", act)
        found = proposed(Search(small(episodes=4, **TWO_TARGETS), world()))
        for position, proposal in enumerate(found):
            for states in shown[2 * position : 2 * position + 2]:
                assert set(states[:, 3].tolist()) == {(0.5, 0.75)[(proposal.episode - 1) % 2]}


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


class TestHistory:
    def test_a_row_an_iteration_and_lane_in_order_of_rounds(self) -> None:
        search = finish(Search(small(lanes=2, episodes=4, include_equal=True), world()))
        history = search.history
        assert history.schema == HISTORY
        places = [(row["episode"], row["iteration"], row["lane"]) for row in history.to_pylist()]
        assert places == [
            (turn * 2 + lane + 1, iteration, lane) for turn in (0, 1) for iteration in (1, 2, 3) for lane in (0, 1)
        ]
        assert [(row["episode"], row["iteration"]) for row in search.last] == [(3, 3), (4, 3)]
        history.validate(full=True)
        for name in HISTORY.names:
            assert history[name].null_count == (history.num_rows if name == "target_sparsity" else 0)

    @pytest.mark.parametrize("reward_quality", ["ratio", "raw"])
    def test_a_row_means_what_its_columns_say(self, reward_quality: str, monkeypatch: pytest.MonkeyPatch) -> None:
        config = small(
            **TWO_TARGETS, lanes=2, reward_quality=reward_quality, memory_weight_rate=0.5, agent={"gradient_steps": 3}
        )
        losses: dict[int, list[float]] = {}
        order: list[int] = []
        update = TD3.update

        def spy(self: TD3, *arguments: Any) -> float:
            loss = update(self, *arguments)
            losses.setdefault(id(self), []).append(loss)
            order.append(id(self))
            return loss

        monkeypatch.setattr(TD3, "update", spy)
        search = Search(config, world())
        for proposal in search.ask():
            search.tell(fitted(proposal))
        price = search.prices[1]
        asked = search.ask()[1]
        fit = fitted(asked)
        choices = {}
        with cpu_threads(1):
            arrays = search.state_dict()["arrays"]
            for side, rows in world().sides.items():
                agent = TD3(config.agent, 4, MAX_SIZE, 0)
                prefix = f"{side}.agent."
                agent.load_state_dict({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
                before = (arrays[f"lanes.{name}"][1][rows] for name in ("sizes", "ratios"))
                states = world().state(rows, *before, 0.75)
                choices[side] = choose(agent, config, states, arrays["lanes.noise"][1][rows], side, (1, 2, 2))
        for proposal in search.ask():
            search.tell(fitted(proposal))
        row = search.last[1]

        quality = world().quality(fit.quality)
        ratios = world().quality_ratio(quality)
        actor = np.concatenate([choices[side].actor for side in ("users", "items")])
        expected = {
            "episode": 2,
            "iteration": 2,
            "lane": 1,
            "target_sparsity": 0.75,
            "memory_weight": price,
            "sparsity": 1 - asked.sizes.sum() / (N * MAX_SIZE),
            "raw_sparsity": 1 - actor.astype(np.float64).sum() / (N * MAX_SIZE),
            "quality": np.delete(fit.quality.astype(np.float64), 5).mean(),
            "quality_ratio": ratios.astype(np.float64).mean(),
            "fit_seconds": fit.fit_seconds,
            "evaluation_seconds": fit.evaluation_seconds,
            "checkpoint_seconds": 0.0,
        }
        gains = (quality if reward_quality == "raw" else ratios).astype(np.float64)
        for side, rows in world().sides.items():
            sizes = asked.sizes[rows].astype(np.float64)
            loss = losses[order[-6 if side == "users" else -1]]
            expected |= {
                f"{side}_actor_size": choices[side].actor.astype(np.float64).mean(),
                f"{side}_noisy_size": choices[side].noisy.astype(np.float64).mean(),
                f"{side}_walk_size": choices[side].chosen.mean(),
                f"{side}_size": sizes.mean(),
                f"{side}_quality_ratio": ratios[rows].astype(np.float64).mean(),
                f"{side}_reward": (gains[rows] - price * (sizes / MAX_SIZE) ** 2).mean(),
                f"{side}_size_sd": sizes.std(),
                f"{side}_critic_loss": sum(loss[-3:]) / 3,
            }
        clocks = {name: row[name] for name in CLOCKS if name != "checkpoint_seconds"}
        assert set(row) == set(expected) | set(clocks) == set(HISTORY.names)
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-6), name
        assert min(clocks.values()) > 0
        assert clocks["agent_seconds"] >= clocks["propose_seconds"] + clocks["update_seconds"]
        assert 0 < row["walk_seconds"] < row["propose_seconds"]
        assert price != config.memory_weight

    def test_rewards_of_a_zero_reference_follow_the_rule(self) -> None:
        """The user for whom the reference scores 0 has the ratio 1, or 1 with any quality and else 0."""
        for rule in ("one", "floor"):
            environment = world(zero_reference=rule)
            search = finish(Search(small(zero_reference=rule), environment))
            quality = environment.quality(fitted(Proposal(0, 2, 3, search.visited[-1].mask.sizes)).quality)
            expected = environment.quality_ratio(quality)[:N_USERS].astype(np.float64).mean()
            assert search.last[0]["users_quality_ratio"] == pytest.approx(expected)

    def test_seconds_of_a_checkpoint_are_shared_by_the_rows_of_the_last_round(self) -> None:
        search = Search(small(lanes=2), world())
        search.record_checkpoint(1.0)
        for _ in range(2):
            for proposal in search.ask():
                search.tell(fitted(proposal))
        search.record_checkpoint(1.0)
        search.record_checkpoint(2.0)
        assert search.history["checkpoint_seconds"].to_pylist() == [0.0, 0.0, 1.5, 1.5]
