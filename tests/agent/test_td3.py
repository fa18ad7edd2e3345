import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from small_agents import (
    ROWS,
    Floats,
    actor_by_hand,
    batch,
    critic_by_hand,
    make,
    part,
    rng,
    same,
    sharpen,
    shift,
    update,
)

from ciess.agent import td3
from ciess.agent.networks import action_distance
from ciess.agent.td3 import TD3


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
