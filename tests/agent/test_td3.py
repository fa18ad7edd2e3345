import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from ciess.agent import td3
from ciess.agent.networks import action_distance, actions_to_sizes, sizes_to_actions
from ciess.agent.policy import choose
from ciess.agent.replay import Replay
from ciess.agent.td3 import TD3
from ciess.config.agent import AgentConfig
from ciess.config.search import SearchConfig
from ciess.devices import cpu_threads

Floats = npt.NDArray[np.float32]
State = dict[str, npt.NDArray[np.generic]]

ROWS = 40


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Agents run on one thread, as in a search."""
    with cpu_threads(1):
        yield


def make(seed: int = 0, hidden: int = 16, state_width: int = 3, **config: Any) -> TD3:
    return TD3(AgentConfig(hidden=hidden, **config), state_width, 128, seed)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def batch(seed: int = 0, rows: int = ROWS) -> tuple[Floats, Floats, Floats, Floats]:
    """States, actions, rewards and next states."""
    generator = rng(100 + seed)
    states, next_states = generator.random((2, rows, 3), dtype=np.float32)
    actions = generator.uniform(-1, 1, rows).astype(np.float32)
    return states, actions, generator.random(rows, dtype=np.float32), next_states


def update(agent: TD3, times: int = 1, first: int = 0) -> list[float]:
    """Updates with batches and noise that differ from each other; the losses."""
    return [agent.update(*batch(number), rng(number)) for number in range(first, first + times)]


def part(agent: TD3, name: str) -> State:
    """Weights of `actor`, `critics`, `target_actor` or `target_critics`, by their names in that part."""
    return {key.removeprefix(f"{name}."): v for key, v in agent.state_dict().items() if key.startswith(f"{name}.")}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def by_hand(weights: State, prefix: str, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Output of two layers with ReLU and a linear one, in float64, from the weights of a state_dict."""
    hidden = inputs.astype(np.float64)
    for layer in ("first", "second", "last"):
        hidden = hidden @ weights[f"{prefix}.layers.{layer}.weight"].T + weights[f"{prefix}.layers.{layer}.bias"]
        hidden = hidden if layer == "last" else np.maximum(hidden, 0)
    return hidden[:, 0]


def critic_by_hand(agent: TD3, name: str, states: Floats, actions: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return by_hand(agent.state_dict(), name, np.column_stack([2 * states - 1, actions]))


def actor_by_hand(agent: TD3, name: str, states: Floats) -> npt.NDArray[np.float64]:
    return np.tanh(by_hand(agent.state_dict(), name, 2 * states - 1))


def shift(network: nn.Module, amount: float) -> None:
    """Move the output of a network, before tanh, by this much."""
    with torch.no_grad():
        network.layers.last.bias.add_(amount)  # type: ignore[union-attr]


def sharpen(network: nn.Module) -> None:
    """Let the output of a fresh network depend strongly on its inputs."""
    with torch.no_grad():
        network.layers.last.weight.mul_(100)  # type: ignore[union-attr]


class TestTargetActions:
    def test_are_the_target_actors_plus_clipped_noise_of_each_transition_clamped_to_minus_1_to_1(self) -> None:
        agent = make(target_noise=30.0, target_noise_clip=40.0)
        update(agent, 4)
        shift(agent.target_actor, 0.5)
        next_states = batch(rows=400)[3]
        found = agent.target_actions(torch.from_numpy(next_states), rng(5)).numpy()
        normal, clip = rng(5).standard_normal(400, dtype=np.float32), action_distance(40.0, 128)
        for n, action in enumerate(actor_by_hand(agent, "target_actor", next_states)):
            noise = min(max(float(normal[n]) * action_distance(30.0, 128), -clip), clip)
            assert found[n] == pytest.approx(min(max(action + noise, -1), 1), abs=1e-5)
        assert found.max() == 1
        assert found.dtype == np.float32

    def test_noise_has_sd_2_dimensions_and_at_most_5_and_is_an_own_one_for_equal_states(self) -> None:
        agent, states = make(), torch.full((100_000, 3), 0.3)
        noise = agent.target_actions(states, rng()).numpy() - agent.target_actor(states).numpy()
        dimensions = noise.astype(np.float64) * 127 / 2
        assert float(dimensions.std()) == pytest.approx(2.0 * 0.9935, rel=0.01)  # 0.9935: of clipping at 2.5 sd
        assert np.abs(dimensions).max() == pytest.approx(5.0, abs=1e-3)
        assert abs(np.corrcoef(dimensions[:-1], dimensions[1:])[0, 1]) < 5 / math.sqrt(len(dimensions))

    @pytest.mark.parametrize(("amount", "edge"), [(9.0, 1.0), (-9.0, -1.0)])
    def test_noise_leads_inwards_only_where_the_actor_is_at_the_edge(self, amount: float, edge: float) -> None:
        agent = make()
        shift(agent.target_actor, amount)
        found = agent.target_actions(torch.from_numpy(batch()[3]), rng()).numpy()
        assert (found * edge).max() == 1
        assert 0.9 < (found * edge).min() < 1


class TestTargets:
    def targets(self, agent: TD3, seed: int = 3) -> tuple[Floats, Floats, Floats]:
        _, _, rewards, next_states = batch()
        found = agent.targets(torch.from_numpy(rewards), torch.from_numpy(next_states), rng(seed))
        return found.numpy(), rewards, next_states

    @pytest.mark.parametrize("gamma", [0.99, 0.5])
    def test_are_the_reward_plus_gamma_times_the_smaller_target_critic(self, gamma: float) -> None:
        agent = make(gamma=gamma)
        next_states = batch()[3]
        sharpen(agent.target_actor)
        actions = agent.target_actions(torch.from_numpy(next_states), rng(3)).numpy()
        for k, network in enumerate(agent.target_critics):
            # Around 0, so that each of the twins is the smaller one for some states.
            sharpen(network)
            shift(network, -float(np.median(critic_by_hand(agent, f"target_critics.{k}", next_states, actions))))
        found, rewards, _ = self.targets(agent)
        one, other = (critic_by_hand(agent, f"target_critics.{k}", next_states, actions) for k in (0, 1))
        assert 0 < (one < other).sum() < ROWS
        expected = [r + gamma * min(a, b) for r, a, b in zip(rewards.tolist(), one, other, strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    def test_are_the_rewards_alone_without_gamma(self) -> None:
        agent = make(gamma=0.0)
        for network in agent.target_critics:
            shift(network, 50.0)
        found, rewards, _ = self.targets(agent)
        np.testing.assert_array_equal(found, rewards)

    @pytest.mark.parametrize("larger", [0, 1])
    def test_the_larger_of_the_twins_does_not_count(self, larger: int) -> None:
        agent = make()
        shift(agent.target_critics[larger], 5.0)
        found, *_ = self.targets(agent)
        shift(agent.target_critics[larger], 500.0)
        np.testing.assert_array_equal(self.targets(agent)[0], found)

    def test_the_online_networks_do_not_count(self) -> None:
        agent = make()
        found, *_ = self.targets(agent)
        for network in (agent.actor, *agent.critics):
            shift(network, 2.0)
        np.testing.assert_array_equal(self.targets(agent)[0], found)

    def test_no_gradient_flows_through_them(self) -> None:
        agent = make()
        _, _, rewards, next_states = batch()
        assert not agent.targets(torch.from_numpy(rewards), torch.from_numpy(next_states), rng()).requires_grad


class TestUpdate:
    def test_targets_start_as_copies(self) -> None:
        agent = make()
        for name in ("actor", "critics"):
            assert same(part(agent, name), part(agent, f"target_{name}"))
        assert not same(part(agent, "critics.0"), part(agent, "critics.1"))

    @pytest.mark.parametrize("gamma", [0.0, 0.99])
    def test_the_loss_is_the_sum_of_both_critics_mean_squared_errors(self, gamma: float) -> None:
        agent = make(gamma=gamma)
        update(agent, 3)
        states, actions, rewards, next_states = batch(3)
        wanted = agent.targets(torch.from_numpy(rewards), torch.from_numpy(next_states), rng(3)).numpy()
        errors = [critic_by_hand(agent, f"critics.{k}", states, actions) - wanted for k in (0, 1)]
        expected = float(np.mean(errors[0] ** 2) + np.mean(errors[1] ** 2))
        assert update(agent, 1, first=3) == [pytest.approx(expected, rel=1e-5)]

    def test_the_loss_goes_down_on_a_fixed_batch(self) -> None:
        agent = make(gamma=0.0)
        losses = [agent.update(*batch(), rng()) for _ in range(300)]
        assert losses[-1] < 0.2 * losses[0]
        assert np.mean(losses[200:]) < np.mean(losses[100:200]) < np.mean(losses[:100])

    @pytest.mark.parametrize("delay", [1, 2, 3])
    def test_actor_and_targets_move_only_at_every_policy_delay_th_update_and_critics_at_all(self, delay: int) -> None:
        agent = make(policy_delay=delay)
        for number in range(1, 8):
            before = {name: part(agent, name) for name in ("actor", "critics", "target_actor", "target_critics")}
            update(agent, 1, first=number)
            moved = {name for name, weights in before.items() if not same(weights, part(agent, name))}
            assert moved == (set(before) if number % delay == 0 else {"critics"})

    def test_target_critics_may_move_at_every_update(self) -> None:
        agent = make(target_critic_every_update=True)
        for number in range(1, 5):
            before = {name: part(agent, name) for name in ("target_actor", "target_critics")}
            update(agent, 1, first=number)
            moved = {name for name, weights in before.items() if not same(weights, part(agent, name))}
            assert moved == ({"target_critics"} if number % 2 else {"target_actor", "target_critics"})

    @pytest.mark.parametrize("tau", [0.005, 0.3, 1.0])
    def test_targets_go_the_share_tau_of_the_way(self, tau: float) -> None:
        agent = make(tau=tau)
        update(agent)
        before = {name: part(agent, f"target_{name}") for name in ("actor", "critics")}
        update(agent, 1, first=1)
        for name, old in before.items():
            online, found = part(agent, name), part(agent, f"target_{name}")
            for key, value in old.items():
                expected = (1 - tau) * value.astype(np.float64) + tau * online[key].astype(np.float64)
                np.testing.assert_allclose(found[key].astype(np.float64), expected, rtol=1e-5, atol=1e-7)

    def first_moments(self, agent: TD3, optimizer: str) -> list[npt.NDArray[Any]]:
        """Adam's first moments, which are a tenth of the gradient after one step."""
        state = part(agent, optimizer)
        return [state[f"{k}.exp_avg"] for k in range(len(state) // 3)]

    def test_the_actor_climbs_the_mean_value_of_the_first_critic_alone(self) -> None:
        agent = make()
        update(agent)
        actor = copy.deepcopy(agent.actor)
        # The minimum of the twins would now be the second.
        shift(agent.critics[1], -5.0)
        update(agent, 1, first=1)
        states = torch.from_numpy(batch(1)[0])
        expected = torch.autograd.grad(-agent.critics[0](states, actor(states)).mean(), list(actor.parameters()))
        found = self.first_moments(agent, "actor_optimizer")
        for moment, gradient in zip(found, expected, strict=True):
            np.testing.assert_allclose(moment, 0.1 * gradient.numpy(), rtol=1e-4, atol=1e-9)

    def test_the_actors_step_leaves_the_critics_alone(self) -> None:
        never, once = make(policy_delay=1000), make(policy_delay=2)
        for agent in (never, once):
            update(agent, 2)
        assert not same(part(never, "actor"), part(once, "actor"))
        assert same(part(never, "critics"), part(once, "critics"))
        assert same(part(never, "critic_optimizer"), part(once, "critic_optimizer"))

    @pytest.mark.parametrize("optimizer", ["critic_optimizer", "actor_optimizer"])
    def test_gradient_clip_bounds_the_norm_of_a_gradient(self, optimizer: str) -> None:
        norms = {}
        for clip in (None, 1e6, 1e-5):
            agent = make(gradient_clip=clip, policy_delay=1)
            update(agent)
            squares = [float(np.sum(moment.astype(np.float64) ** 2)) for moment in self.first_moments(agent, optimizer)]
            norms[clip] = 10 * math.sqrt(sum(squares))
        assert norms[None] == norms[1e6] > 5e-4
        assert norms[1e-5] == pytest.approx(1e-5, rel=1e-2)

    def test_learning_rates_are_those_of_the_config(self) -> None:
        agent = make(actor_learning_rate=2e-4, critic_learning_rate=5e-3, policy_delay=1)
        before = {name: part(agent, name) for name in ("actor", "critics")}
        update(agent)
        for name, rate in {"actor": 2e-4, "critics": 5e-3}.items():
            after = part(agent, name)
            # Adam's first step is as long as the learning rate wherever the gradient is not next to 0.
            steps = np.concatenate([np.abs(after[key] - value).ravel() for key, value in before[name].items()])
            assert float(steps.max()) == pytest.approx(rate, rel=1e-2)


class TestValues:
    @pytest.mark.parametrize("rule", ["first", "min"])
    @pytest.mark.parametrize("block_rows", [1, 7, 1024])
    def test_are_those_of_the_first_critic_or_the_smaller_of_both_whatever_the_blocks(
        self, rule: str, block_rows: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent = make(walk_critic=rule)
        update(agent, 10)
        states = batch()[0]
        actions = rng(1).uniform(-1, 1, (ROWS, 6)).astype(np.float32)
        monkeypatch.setattr(td3, "BLOCK_ROWS", block_rows)
        found = agent.values(states, actions)
        one, other = (
            np.stack([critic_by_hand(agent, f"critics.{k}", states, actions[:, m]) for m in range(6)], axis=1)
            for k in (0, 1)
        )
        assert 0 < (other < one).sum() < one.size
        np.testing.assert_allclose(found, one if rule == "first" else np.minimum(one, other), rtol=1e-5, atol=1e-6)
        assert found.dtype == np.float32

    @pytest.mark.parametrize("block_rows", [1, 7, 1024])
    def test_actions_are_those_of_the_actor_whatever_the_blocks(
        self, block_rows: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent, states = make(), batch()[0]
        update(agent, 2)
        monkeypatch.setattr(td3, "BLOCK_ROWS", block_rows)
        found = agent.act(states)
        np.testing.assert_allclose(found, actor_by_hand(agent, "actor", states), rtol=1e-5, atol=1e-6)
        assert found.dtype == np.float32

    def test_a_side_without_entities_has_no_actions_and_no_values(self) -> None:
        agent, none = make(walk_critic="min"), np.zeros((0, 3), np.float32)
        assert agent.act(none).shape == (0,)
        assert agent.values(none, np.zeros((0, 6), np.float32)).shape == (0, 6)

    def test_the_callers_arrays_are_left_as_they_are(self) -> None:
        agent, states = make(), batch()[0]
        actions = rng(1).uniform(-1, 1, (ROWS, 6)).astype(np.float32)
        before = states.copy(), actions.copy()
        agent.act(states)
        agent.values(states, actions)
        np.testing.assert_array_equal(states, before[0])
        np.testing.assert_array_equal(actions, before[1])


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
