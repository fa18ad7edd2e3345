"""Strategy `td3`: Algorithm 1, episodes side by side in lanes that share two agents and a replay buffer."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ciess import masks
from ciess.config.search import SearchConfig
from ciess.devices import cpu_threads
from ciess.masks.popularity import sized_mask
from ciess.search.environment import Environment
from ciess.search.history import history_row
from ciess.search.learner import Learner
from ciess.search.proposals import Proposal
from ciess.search.strategies.strategy import AGENT_THREADS, Arrays, Plan, Result
from ciess.storage.columns import SIDES
from ciess.training.starts.rule import Rule


@dataclass
class _Lane:
    """An episode in progress: the sizes fitted last int16[n], their quality ratios float32[n], the noise float64[n]."""

    sizes: npt.NDArray[np.int16]
    ratios: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float64]


class Td3Strategy:
    """Two agents that choose a size for every row, an iteration after the other."""

    def __init__(self, config: SearchConfig, environment: Environment, rules: dict[float, Rule] | None = None) -> None:
        self.config, self.environment, self.rules = config, environment, rules or {}
        with cpu_threads(AGENT_THREADS):
            self._learner = Learner(config, environment, {target: self._ruled(target) for target in self.rules})
        self._lanes = [self._fresh_lane() for _ in range(config.lanes)]

    @property
    def prices(self) -> list[float]:
        """The memory weight now: one, or one a target."""
        return list(self._learner.prices)

    def propose(self, number: int) -> list[Plan]:
        """A proposal a lane."""
        return [self._propose_lane(number, lane) for lane in range(self.config.lanes)]

    def learn(self, results: list[Result]) -> list[dict[str, Any]]:
        """Remember and learn in lane order, then move the prices."""
        rows = [self._learn(result) for result in results]
        if self.config.budget_mode == "target":
            self._learner.move_prices((row["episode"], 1 - row["raw_sparsity"]) for row in rows)
        return rows

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Agents, buffers, lanes and prices."""
        arrays = self._learner.state_dict()
        for name in ("sizes", "ratios", "noise"):
            arrays[f"lanes.{name}"] = np.stack([getattr(lane, name) for lane in self._lanes])
        return arrays, {"prices": self.prices}

    def load(self, arrays: Arrays, values: dict[str, Any]) -> None:
        """As `Strategy.load` says."""
        self._learner.load_state_dict(arrays)
        self._learner.prices = list(values["prices"])
        parts = zip(arrays["lanes.sizes"], arrays["lanes.ratios"], arrays["lanes.noise"], strict=True)
        self._lanes = [_Lane(*(part.copy() for part in lane)) for lane in parts]

    def _ruled(self, target: float) -> npt.NDArray[np.int16]:
        """Sizes of the rule at a target."""
        environment, rule = self.environment, self.rules[target]
        return sized_mask(
            environment.degrees,
            environment.n_users,
            self.config.max_size,
            target,
            environment.bounds,
            rule.item_share,
            rule.popularity,
        ).sizes

    def _fresh_lane(self) -> _Lane:
        """s^0: everyone at max_size, or the largest size it may have, nothing lost (line 4 of Algorithm 1)."""
        n = self.environment.n
        return _Lane(self.environment.bounds.high.copy(), np.ones(n, np.float32), np.zeros(n))

    def _propose_lane(self, number: int, lane: int) -> Plan:
        start = time.perf_counter()
        turn, step = divmod(number - 1, self.config.iterations)
        episode, iteration = turn * self.config.lanes + lane + 1, step + 1
        if iteration == 1:
            self._lanes[lane] = self._fresh_lane()
        now = self._lanes[lane]
        choices = self._learner.choose((lane, episode, iteration), now.sizes, now.ratios, now.noise)
        sizes = np.concatenate([choices[side].chosen for side in SIDES])
        target = self.config.target(episode)
        if target is not None:
            wanted = sizes.astype(np.float64)
            degrees, bounds = self.environment.degrees, self.environment.bounds
            sizes = masks.project(wanted, self.config.max_size, target, degrees, bounds).sizes
        rule = None if target is None else self.rules.get(target)
        proposal = Proposal(lane, episode, iteration, sizes, None if rule is None else rule.start)
        return Plan(proposal, target=target, choices=choices, seconds=time.perf_counter() - start)

    def _learn(self, result: Result) -> dict[str, Any]:
        start = time.perf_counter()
        plan, outcome = result.plan, result.outcome
        proposal, before = plan.proposal, self._lanes[plan.proposal.lane]
        transition: Arrays = {
            "sizes_before": before.sizes,
            "ratios_before": before.ratios,
            "sizes": proposal.sizes,
            "ratios": result.ratios,
            "raw": result.quality,
        }
        self._learner.remember(transition, proposal.episode)
        update_start = time.perf_counter()
        losses = self._learner.update(proposal.slot)
        update_seconds = time.perf_counter() - update_start
        noise = np.concatenate([plan.choices[side].noise for side in SIDES])
        self._lanes[proposal.lane] = _Lane(proposal.sizes, result.ratios, noise)
        row = history_row(result.candidate, self.config, self._learner, plan.choices, transition, losses)
        return row | {
            "fit_seconds": outcome.fit_seconds,
            "evaluation_seconds": outcome.evaluation_seconds,
            "propose_seconds": plan.seconds,
            "walk_seconds": sum(choice.walk_seconds for choice in plan.choices.values()),
            "update_seconds": update_seconds,
            "agent_seconds": plan.seconds + time.perf_counter() - start,
            "checkpoint_seconds": 0.0,
        }
