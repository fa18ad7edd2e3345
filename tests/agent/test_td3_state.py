from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from small_agents import Floats, make, part, rng, same, update

from ciess.agent.networks import actions_to_sizes, sizes_to_actions
from ciess.agent.policy import choose
from ciess.agent.replay import Replay
from ciess.agent.td3 import TD3
from ciess.config.agent import AgentConfig
from ciess.config.search import SearchConfig


class TestState:
    def test_two_updates_after_a_reload_give_the_bits_of_an_undisturbed_agent(self) -> None:
        undisturbed = make()
        update(undisturbed, 3)
        reloaded = make(seed=1)
        reloaded.load_state_dict(undisturbed.state_dict())
        losses = [update(agent, 2, first=3) for agent in (undisturbed, reloaded)]
        assert losses[0] == losses[1]
        assert same(undisturbed.state_dict(), reloaded.state_dict())

    def test_a_state_before_any_update_makes_a_used_agent_a_fresh_one(self) -> None:
        fresh, used = make(), make(seed=1)
        update(used, 3)
        used.load_state_dict(make().state_dict())
        for agent in (fresh, used):
            update(agent, 2)
        assert same(fresh.state_dict(), used.state_dict())

    def test_a_state_stays_as_it_was_when_either_agent_goes_on(self) -> None:
        agent, other = make(), make(seed=1)
        update(agent, 3)
        state = agent.state_dict()
        expected = {name: value.copy() for name, value in state.items()}
        other.load_state_dict(state)
        for one in (agent, other):
            update(one, 3, first=3)
        assert same(state, expected)

    def test_a_state_holds_every_weight_moment_and_step(self) -> None:
        agent = make()
        update(agent, 2)
        names = {name.split(".")[0] for name in agent.state_dict()}
        weights = {"actor", "critics", "target_actor", "target_critics"}
        assert names == weights | {"actor_optimizer", "critic_optimizer", "updates"}
        assert len(part(agent, "critics")) == 12
        assert len(part(agent, "critic_optimizer")) == 36

    def test_equal_seeds_and_batches_give_equal_bits_and_other_seeds_other(self) -> None:
        one, equal, other = make(seed=5), make(seed=5), make(seed=6)
        with torch.random.fork_rng(devices=[]):
            for number, agent in enumerate((one, equal, other)):
                torch.manual_seed(number)
                update(agent, 4)
        assert same(one.state_dict(), equal.state_dict())
        for name in ("actor", "critics.0", "critics.1", "target_actor"):
            assert not same(part(one, name), part(other, name))


def learned_sizes(seed: int, best: Callable[[Floats], npt.NDArray[Any]]) -> tuple[Floats, npt.NDArray[Any]]:
    """Sizes of the actor for 60 entities whose reward is -((size - best) / 128)^2, and the best ones."""
    config = SearchConfig(seed=seed, agent=AgentConfig(hidden=64, gamma=0.0, batch_size=128))
    agent, generator = TD3(config.agent, 3, 128, seed), rng(seed)
    states = generator.random((60, 3), dtype=np.float32)
    wanted = best(states)
    replay = Replay(100, {"sizes": np.dtype(np.int16)}, np.ones(60, np.bool_))
    for iteration in range(150):
        chosen = choose(agent, config, states, np.zeros(60), "users", (0, 1, iteration)).chosen
        replay.add({"sizes": chosen})
        for _ in range(10):
            entities, drawn = replay.sample(config.agent.batch_size, generator)
            now, sizes = states[entities], drawn["sizes"]
            rewards = (-np.square((sizes - wanted[entities]) / 128)).astype(np.float32)
            agent.update(now, sizes_to_actions(sizes, 128), rewards, now, generator)
    return actions_to_sizes(agent.act(states), 128), wanted


class TestLearning:
    def test_finds_the_best_size_of_a_one_step_problem_within_10_percent_for_every_entity(self) -> None:
        found, wanted = learned_sizes(0, lambda states: np.full(len(states), 40.0))
        np.testing.assert_allclose(found, wanted, rtol=0.1)

    def test_finds_best_sizes_that_depend_on_the_state(self) -> None:
        found, wanted = learned_sizes(1, lambda states: 20 + 60 * states[:, 0])
        assert float(np.mean(np.abs(found - wanted) / wanted)) < 0.1
        np.testing.assert_allclose(found, wanted, atol=8)
