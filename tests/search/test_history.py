from typing import Any

import numpy as np
import pytest
from tiny_searches import CLOCKS, MAX_SIZE, N_USERS, TWO_TARGETS, N, finish, fitted, small, world

from ciess.agent.policy import choose
from ciess.agent.td3 import TD3
from ciess.devices import cpu_threads
from ciess.search.proposals import Proposal
from ciess.search.search import Search
from ciess.storage.columns import HISTORY


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
            empty = name in ("target_sparsity", "choice_quality")
            assert history[name].null_count == (history.num_rows if empty else 0)

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
        # Validation is not cut in two.
        assert row["choice_quality"] is None
        assert set(row) - {"choice_quality"} == set(expected) | set(clocks) == set(HISTORY.names) - {"choice_quality"}
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
