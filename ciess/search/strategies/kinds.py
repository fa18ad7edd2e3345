"""Strategies `kinds` and `random`: sizes by kind of row, searched by CMA-ES or drawn.

The state of CMA-ES is replayed from the values that it was told, so that a checkpoint holds numbers alone.
"""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
from cmaes import CMA

from ciess.config.search import SearchConfig
from ciess.search.environment import Environment
from ciess.search.history import side_values
from ciess.search.kinds import Kinds, Vector
from ciess.search.proposals import Proposal
from ciess.search.strategies.strategy import Arrays, Plan, Result
from ciess.seeds import derive_seed
from ciess.storage.columns import SIDES
from ciess.training.starts.rule import Rule

FIRST_STEP = 0.3
"""Of CMA-ES, in deviations of the coordinates: with 1 its first ten generations are worse than the rule (MovieLens-1M,
items, 300 fits: 95 % .1544 -> .1577 with 0.3, .1559 with 1; 99 % .1355 -> .1422 and .1407)."""


SCREENED = 1.0
"""How far a trait is tried either way in the first generation, in deviations of its coordinate."""


class KindsStrategy:
    """A generation of vectors a round; budgets take turns, each with a search of its own."""

    def __init__(self, config: SearchConfig, environment: Environment, rules: dict[float, Rule]) -> None:
        """rules: of `sized`, by budget; each search begins at its own."""
        self.config, self.environment, self.rules = config, environment, rules
        self.targets = list(dict.fromkeys(config.targets))
        self.kinds = Kinds(
            environment.degrees,
            environment.n_users,
            config.backbone,
            config.max_size,
            environment.bounds,
            config.kinds,
            environment.traits if config.kinds.traits else None,
        )
        # By budget, what the rule is worth, and the values of each generation so far.
        self._worth: dict[float, float] = {}
        self._told: dict[float, list[list[float]]] = {target: [] for target in self.targets}
        self._searches = {target: self._new_search(target) for target in self.targets}
        self._vectors: list[Vector] = []

    @property
    def prices(self) -> list[float]:
        """None: every fit keeps its budget."""
        return []

    def see(self, results: list[Result]) -> None:
        """What the rule is worth."""
        for result in results:
            if result.plan.origin == "sized" and result.plan.target is not None:
                self._worth[result.plan.target] = -result.candidate.quality

    def propose(self, number: int) -> list[Plan]:
        """A generation for one budget."""
        start = time.perf_counter()
        label = (number - 1) % len(self.targets)
        target = self.targets[label]
        self._vectors = self._generation(target)
        found = []
        for lane, vector in enumerate(self._vectors):
            mask, begin = self.kinds.decode(vector * self.kinds.deviations, self.rules[target], target)
            slot = (lane, (number - 1) * self.config.lanes + lane + 1, 1)
            found.append(Proposal(*slot, mask.sizes, begin))
        each = (time.perf_counter() - start) / len(found)
        return [Plan(proposal, target=target, label=label, seconds=each) for proposal in found]

    def learn(self, results: list[Result]) -> list[dict[str, Any]]:
        """Tell a whole generation."""
        start = time.perf_counter()
        target = results[0].plan.target
        assert target is not None
        values = [-result.candidate.quality for result in results]
        self._tell(target, self._vectors, values)
        each = (time.perf_counter() - start) / len(results)
        return [self._row(result, each) for result in results]

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """What was told, a generation a row."""
        worth = [self._worth.get(target) for target in self.targets]
        return {}, {"told_generations": [self._told[target] for target in self.targets], "worth_of_rules": worth}

    def load(self, arrays: Arrays, values: dict[str, Any]) -> None:
        """Replay what was told."""
        worth = zip(self.targets, values["worth_of_rules"], strict=True)
        self._worth = {target: value for target, value in worth if value is not None}
        for target, told in zip(self.targets, values["told_generations"], strict=True):
            self._told[target] = []
            self._searches[target] = self._new_search(target)
            for generation in told:
                self._tell(target, self._generation(target), list(generation))

    def _tell(self, target: float, vectors: list[Vector], values: list[float]) -> None:
        """Go on from a whole generation: to CMA-ES around what the traits are worth, or with it."""
        search = self._searches[target]
        if search is not None and self._screens(target):
            self._searches[target] = self._new_search(target, self._mean_of_traits(target, values))
        elif search is not None:
            search.tell(list(zip(vectors, values, strict=True)))
        self._told[target].append(values)

    @property
    def _trials(self) -> list[tuple[int, int]]:
        """Of each trait that has room in a generation: where it is tried upwards, downwards next to it; coordinate."""
        return list(zip(range(0, self.config.lanes - 1, 2), self.kinds.of_traits, strict=False))

    def _screens(self, target: float) -> bool:
        """Whether the generation is the first, in which each trait is tried both ways, as far as its places allow."""
        return bool(self.kinds.of_traits) and not self._told[target]

    def _mean_of_traits(self, target: float, values: list[float]) -> Vector:
        """Where CMA-ES begins: the lowest point of a parabola through the rule and either way of each trait."""
        mean = np.zeros(len(self.kinds.names))
        for place, coordinate in self._trials:
            up, down = values[place], values[place + 1]
            middle = self._worth.get(target, (up + down) / 2)
            slope, bend = (up - down) / 2, (up + down) / 2 - middle
            lowest = -slope / (2 * bend) if bend > 0 else -np.sign(slope)
            mean[coordinate] = SCREENED * float(np.clip(lowest, -1, 1))
        return mean

    def _new_search(self, target: float, mean: Vector | None = None) -> CMA | None:
        """Around a vector, the rule by default; None for strategy `random`, which learns nothing."""
        if self.config.strategy == "random":
            return None
        return CMA(
            mean=np.zeros(len(self.kinds.names)) if mean is None else mean,
            sigma=FIRST_STEP,
            seed=derive_seed(self.config.seed, "kinds", str(target)) % 2**32,
            population_size=self.config.lanes,
        )

    def _generation(self, target: float) -> list[Vector]:
        search, number = self._searches[target], len(self._told[target])
        seed = derive_seed(self.config.seed, "random", str(target), number)
        generator = np.random.Generator(np.random.PCG64(seed))
        shape = (self.config.lanes, len(self.kinds.names))
        if search is not None and self._screens(target):
            found: list[Vector] = list(FIRST_STEP * generator.standard_normal(shape))
            for place, coordinate in self._trials:
                for row, way in ((place, 1.0), (place + 1, -1.0)):
                    found[row] = np.zeros(shape[1])
                    found[row][coordinate] = way * SCREENED
            return found
        if search is not None:
            return [search.ask() for _ in range(shape[0])]
        # Near the rule and far from it: nobody knows which is better.
        drawn: npt.NDArray[np.float64] = generator.uniform(0, 1, (shape[0], 1)) * generator.standard_normal(shape)
        return list(drawn)

    def _row(self, result: Result, seconds: float) -> dict[str, Any]:
        candidate, plan = result.candidate, result.plan
        row: dict[str, Any] = {
            "episode": candidate.episode,
            "iteration": candidate.iteration,
            "lane": candidate.lane,
            "target_sparsity": plan.target,
            "memory_weight": 0.0,
            "sparsity": candidate.sparsity,
            "raw_sparsity": candidate.sparsity,
            "quality": candidate.quality,
            "quality_ratio": candidate.quality_ratio,
            "choice_quality": candidate.choice_quality,
        }
        for side in SIDES:
            rows = self.environment.sides[side]
            sizes = plan.proposal.sizes[rows]
            row |= side_values(side, (sizes,) * 4, result.ratios[rows], result.ratios[rows], None)
        return row | {
            "fit_seconds": result.outcome.fit_seconds,
            "evaluation_seconds": result.outcome.evaluation_seconds,
            "propose_seconds": plan.seconds,
            "walk_seconds": 0.0,
            "update_seconds": seconds,
            "agent_seconds": plan.seconds + seconds,
            "checkpoint_seconds": 0.0,
        }
