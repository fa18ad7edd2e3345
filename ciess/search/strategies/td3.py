"""Strategy `td3`: Algorithm 1, episodes side by side in lanes that share two agents and a replay buffer.

Its agents may begin with what strategy `kinds` has found: its fits fill their replay buffers, its best sizes are what
the actors want at first, and where their episodes begin.
"""

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
from ciess.search.learner import Known, Learner
from ciess.search.proposals import Proposal
from ciess.search.strategies.elites import Elites
from ciess.search.strategies.kinds import KindsStrategy
from ciess.search.strategies.strategy import AGENT_THREADS, Arrays, Plan, Result
from ciess.storage.columns import SIDES
from ciess.training.starts.rule import Rule
from ciess.training.starts.start import Start


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
            self._learner = Learner(config, environment)
            if config.agent.begin == "rule" and self.rules:
                self._imitate_the_rules()
        agent = config.agent
        # Algorithm 1 has no use for them.
        self._follows_the_best = agent.episodes_from == "best" or agent.held_to_best > 0 or agent.begin == "kinds"
        self._elites = Elites()
        self._kinds = KindsStrategy(config, environment, self.rules) if config.agent.begin == "kinds" else None
        self._kinds_rounds = len(config.targets) * config.kinds_generations
        self._lanes = [self._fresh_lane(0) for _ in range(config.lanes)]

    @property
    def prices(self) -> list[float]:
        """The memory weight now: one, or one a target."""
        return list(self._learner.prices)

    def see(self, results: list[Result]) -> None:
        """Keep the best so far."""
        if self._kinds is not None:
            self._kinds.see(results)
        for result in results if self._follows_the_best else ():
            self._elites.see(result.plan.label, result)

    def propose(self, number: int) -> list[Plan]:
        """A proposal a lane."""
        if self._kinds is not None and number <= self._kinds_rounds:
            return self._kinds.propose(number)
        return [self._propose_lane(number, lane) for lane in range(self.config.lanes)]

    def learn(self, results: list[Result]) -> list[dict[str, Any]]:
        """Remember and learn in lane order, then move the prices."""
        if not results[0].plan.choices:
            assert self._kinds is not None
            for result in results:
                self._remember(result, self._fresh_lane(result.plan.label))
            rows = self._kinds.learn(results)
        else:
            rows = [self._learn(result) for result in results]
            if self.config.budget_mode == "target":
                labels = [result.plan.label for result in results]
                self._learner.move_prices(
                    (label, 1 - row["raw_sparsity"]) for label, row in zip(labels, rows, strict=True)
                )
        self.see(results)
        if self._kinds is not None and results[-1].plan.proposal.episode == self._kinds_rounds * self.config.lanes:
            found = [self._best(label) for label in range(len(self.config.targets))]
            self._learner.imitate([known for known in found if known is not None])
        return rows

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Agents, buffers, lanes and prices."""
        arrays = self._learner.state_dict()
        for name in ("sizes", "ratios", "noise"):
            arrays[f"lanes.{name}"] = np.stack([getattr(lane, name) for lane in self._lanes])
        best, values = self._elites.state()
        kinds = {} if self._kinds is None else self._kinds.state()[1] | {"kinds_rounds": self._kinds_rounds}
        return arrays | best, {"prices": self.prices, "elites": values} | kinds

    def load(self, arrays: Arrays, values: dict[str, Any]) -> None:
        """As `Strategy.load` says."""
        self._learner.load_state_dict(arrays)
        self._learner.prices = list(values["prices"])
        self._elites.load(arrays, values.get("elites", []))
        if self._kinds is not None:
            # A search that is made longer keeps the place where its agents took over.
            self._kinds.load(arrays, values)
            self._kinds_rounds = values["kinds_rounds"]
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

    def _imitate_the_rules(self) -> None:
        """Actors want the sizes of each rule, where an episode begins and where these lead to."""
        known, high = [], self.environment.bounds.high
        for label, target in enumerate(self.config.targets):
            sizes, ones = self._ruled(target), np.ones(self.environment.n, np.float32)
            known += [Known(label, before, ones, sizes) for before in (high, sizes)]
        self._learner.imitate(known)

    def _best(self, label: int) -> Known | None:
        """The best mask of a target, as what it leads to."""
        best = self._elites[label]
        return None if best is None else Known(label, best.sizes, best.ratios, best.sizes)

    def _fresh_lane(self, label: int) -> _Lane:
        """s^0: everyone at max_size, or the largest size it may have, nothing lost (line 4 of Algorithm 1); or the best
        mask of the target.
        """
        n = self.environment.n
        best = self._elites[label] if self.config.agent.episodes_from == "best" else None
        if best is not None:
            return _Lane(best.sizes, best.ratios, np.zeros(n))
        return _Lane(self.environment.bounds.high.copy(), np.ones(n, np.float32), np.zeros(n))

    def _label(self, number: int, episode: int) -> int:
        """Position of the target of an episode; beside `kinds` it is one for a whole round."""
        return (episode - 1 if self._kinds is None else number - 1) % max(1, len(self.config.targets))

    def _propose_lane(self, number: int, lane: int) -> Plan:
        start = time.perf_counter()
        turn, step = divmod(number - 1, self.config.iterations)
        episode, iteration = turn * self.config.lanes + lane + 1, step + 1
        label = self._label(number, episode)
        if iteration == 1:
            self._lanes[lane] = self._fresh_lane(label)
        now = self._lanes[lane]
        choices = self._learner.choose((lane, episode, iteration), label, now.sizes, now.ratios, now.noise)
        sizes = np.concatenate([choices[side].chosen for side in SIDES])
        target = self.config.targets[label] if self.config.targets else None
        if target is not None:
            wanted = sizes.astype(np.float64)
            degrees, bounds = self.environment.degrees, self.environment.bounds
            sizes = masks.project(wanted, self.config.max_size, target, degrees, bounds).sizes
        proposal = Proposal(lane, episode, iteration, sizes, self._start(label))
        return Plan(proposal, "search", target, label, choices, time.perf_counter() - start)

    def _start(self, label: int) -> Start | None:
        """Of short fits: that of the best mask, where episodes begin with it; that of the rule; or the config's."""
        best = self._elites[label] if self.config.agent.episodes_from == "best" else None
        if best is not None and best.start is not None:
            return best.start
        rule = self.rules.get(self.config.targets[label]) if self.config.targets else None
        return None if rule is None else rule.start

    def _remember(self, result: Result, before: _Lane) -> Arrays:
        transition: Arrays = {
            "sizes_before": before.sizes,
            "ratios_before": before.ratios,
            "sizes": result.plan.proposal.sizes,
            "ratios": result.ratios,
            "raw": result.quality,
        }
        self._learner.remember(transition, result.plan.label)
        return transition

    def _learn(self, result: Result) -> dict[str, Any]:
        start = time.perf_counter()
        plan, outcome = result.plan, result.outcome
        proposal = plan.proposal
        transition = self._remember(result, self._lanes[proposal.lane])
        update_start = time.perf_counter()
        held_to = self._best(plan.label) if self.config.agent.held_to_best else None
        losses = self._learner.update(proposal.slot, held_to)
        update_seconds = time.perf_counter() - update_start
        noise = np.concatenate([plan.choices[side].noise for side in SIDES])
        self._lanes[proposal.lane] = _Lane(proposal.sizes, result.ratios, noise)
        row = history_row(result.candidate, self.config, self._learner, plan.label, plan.choices, transition, losses)
        return row | {
            "fit_seconds": outcome.fit_seconds,
            "evaluation_seconds": outcome.evaluation_seconds,
            "propose_seconds": plan.seconds,
            "walk_seconds": sum(choice.walk_seconds for choice in plan.choices.values()),
            "update_seconds": update_seconds,
            "agent_seconds": plan.seconds + time.perf_counter() - start,
            "checkpoint_seconds": 0.0,
        }
