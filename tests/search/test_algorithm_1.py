import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tiny_searches import (
    MAX_SIZE,
    N_USERS,
    N,
    Sizes,
    Spied,
    bits,
    finish,
    fitted,
    proposed,
    small,
    world,
)

from ciess.agent.networks import sizes_to_actions
from ciess.agent.policy import choose
from ciess.agent.replay import Replay
from ciess.agent.td3 import TD3
from ciess.config.search import SearchConfig
from ciess.devices import cpu_threads
from ciess.search.environment import Environment
from ciess.search.proposals import Proposal
from ciess.search.search import Search
from ciess.seeds import derive_seed


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
