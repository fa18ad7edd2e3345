import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tiny_searches import MAX_SIZE, TWO_TARGETS, N, Spied, finish, fitted, proposed, small, world

from ciess import masks
from ciess.agent.networks import actions_to_sizes, sizes_to_actions
from ciess.agent.td3 import TD3
from ciess.config.search import SearchConfig
from ciess.search.search import Search


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

        def update(self: TD3, states: Any, actions: Any, rewards: Any, after: Any, generator: Any, *_: Any) -> float:
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
