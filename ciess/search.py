"""The search of Algorithm 1 by ask and tell: it proposes sizes and learns from what others found by fitting them.

It trains no recommender and knows no cluster: a loop in this process and workers elsewhere drive the same object. A
round is one proposal a lane; it is learned from in lane order when its last outcome is told, so the order in which
outcomes arrive changes nothing.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess import masks
from ciess.agent.networks import sizes_to_actions
from ciess.agent.policy import Choice, choose
from ciess.agent.replay import Replay
from ciess.agent.td3 import TD3
from ciess.candidates import Candidate, best_searched, from_columns, to_columns
from ciess.environment import Environment
from ciess.errors import SearchError
from ciess.history import HISTORY, SIDES, side_columns
from ciess.masks import PrefixMask
from ciess.prepared import cpu_threads
from ciess.proposals import Outcome, Place, Proposal
from ciess.search_config import SearchConfig
from ciess.seeds import derive_seed
from ciess.storage import Storage

Arrays = dict[str, npt.NDArray[Any]]

AGENT_THREADS = 1
"""Threads of the agents: the bits of a search must not depend on the threads of its fits."""


@dataclass
class _Lane:
    """An episode in progress: the sizes fitted last int16[n], their quality ratios float32[n], the noise float64[n]."""

    sizes: npt.NDArray[np.int16]
    ratios: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float64]


@dataclass
class _Plan:
    """A proposal, how the policy came to it, and the seconds that took; no choices for equal sizes."""

    proposal: Proposal
    choices: dict[str, Choice]
    seconds: float


class Search:
    """A search in progress. Equal config, data and reference give equal proposals, whoever fits them and where."""

    def __init__(self, config: SearchConfig, environment: Environment) -> None:
        """Raises BudgetError for budgets that cannot be met."""
        self.config, self.environment = config, environment
        self.run: Storage | None = None
        for budget in config.budgets:
            masks.budget(environment.n, config.max_size, budget)
        self.prices = [config.memory_weight] * max(1, len(config.targets))
        self.visited: list[Candidate] = []
        self._rows: list[dict[str, Any]] = []
        self._outcomes: dict[Place, Outcome] = {}
        self._plans: list[_Plan] | None = None
        state_width = 4 if len(config.targets) > 1 else 3
        columns: dict[str, np.dtype[Any]] = {
            "sizes_before": np.dtype(np.int16),
            "ratios_before": np.dtype(np.float32),
            "sizes": np.dtype(np.int16),
            "ratios": np.dtype(np.float32),
        }
        if config.reward_quality == "raw":
            columns["raw"] = np.dtype(np.float32)
        self._agents: dict[str, TD3] = {}
        self._replays: dict[str, Replay] = {}
        for side, rows in environment.sides.items():
            seed = derive_seed(config.seed, "networks", side)
            self._agents[side] = TD3(config.agent, state_width, config.max_size, seed)
            self._replays[side] = Replay(config.agent.replay_iterations, columns, environment.learnable[rows])
        self._lanes = [self._fresh_lane() for _ in range(config.lanes)]
        self._equal = self._equal_masks()
        self._round = 0 if self._equal else 1

    @property
    def rounds(self) -> int:
        """Rounds of the whole search, the one of equal sizes not counted."""
        return self.config.episodes // self.config.lanes * self.config.iterations

    @property
    def done(self) -> bool:
        """Whether every outcome has been told."""
        return self._round > self.rounds

    @property
    def fits_done(self) -> int:
        """Short fits told so far."""
        return len(self.visited) + len(self._outcomes)

    @property
    def fits(self) -> int:
        """Short fits of the whole search."""
        return len(self._equal) + self.rounds * self.config.lanes

    @property
    def history(self) -> pa.Table:
        """Rows of history.parquet so far."""
        return pa.Table.from_pylist(self._rows, schema=HISTORY)

    @property
    def last(self) -> list[dict[str, Any]]:
        """Rows of the last completed round, by the columns of history.parquet."""
        return self._rows[-self.config.lanes :]

    def candidates(self, sparsity: float, count: int | None = None) -> list[Candidate]:
        """The `count` best searched masks for a budget, best first (Eq. 15); fewer, or none, where no more keep it.

        count: l, by default that of the config.
        """
        return best_searched(self.visited, self.config, sparsity, count)

    def ask(self) -> list[Proposal]:
        """The untold proposals of this round: the same ones until they are told, none when the search is done."""
        if self.done:
            return []
        if self._plans is None:
            self._plans = self._propose()
        return [plan.proposal for plan in self._plans if plan.proposal.place not in self._outcomes]

    def tell(self, outcome: Outcome) -> bool:
        """Take the outcome of a proposal, in any order; one that is known already changes nothing.

        Returns whether it was new. Raises SearchError for one that is not of this or an earlier round, or whose
        qualities are not numbers in [0, 1], one a user.
        """
        if self._is_past(outcome.place):
            return False
        if self._plans is None:
            self.ask()
        plans = {plan.proposal.place: plan for plan in self._plans or []}
        if outcome.place not in plans:
            raise SearchError(
                f"Found an outcome for (lane, episode, iteration) {outcome.place}, but expected one of "
                f"{', '.join(map(str, plans)) or 'none, as the search is done'}. Tell outcomes of what ask() gave."
            )
        if outcome.place in self._outcomes:
            return False
        quality = np.asarray(outcome.quality)
        if quality.shape != (self.environment.n_users,) or not ((quality >= 0) & (quality <= 1)).all():
            raise SearchError(
                f"The outcome of {outcome.place} holds qualities of shape {quality.shape}, from {quality.min():g} to "
                f"{quality.max():g}. Expected {self.environment.n_users:,} numbers in [0, 1], one a user."
            )
        self._outcomes[outcome.place] = outcome
        if len(self._outcomes) == len(plans):
            self._complete(list(plans.values()))
        return True

    def record_checkpoint(self, seconds: float) -> None:
        """Note what writing a checkpoint took, in the rows of the last completed round."""
        for row in self.last:
            row["checkpoint_seconds"] += seconds / len(self.last)

    def _fresh_lane(self) -> _Lane:
        """s^0: everyone at max_size, nothing lost (line 4 of Algorithm 1)."""
        n = self.environment.n
        return _Lane(np.full(n, self.config.max_size, np.int16), np.ones(n, np.float32), np.zeros(n))

    def _equal_masks(self) -> list[PrefixMask]:
        """Equal sizes at each budget, each choice of sizes once."""
        config, environment = self.config, self.environment
        if not config.include_equal:
            return []
        found = [
            mask for budget in config.budgets for mask in masks.equals(config.max_size, budget, environment.degrees)
        ]
        return list({mask.sizes.tobytes(): mask for mask in found}.values())

    def _is_past(self, place: Place) -> bool:
        lane, episode, iteration = place
        if episode == 0:
            return self._round > 0 and lane == 0 and 1 <= iteration <= len(self._equal)
        in_range = 0 <= lane < self.config.lanes and 1 <= iteration <= self.config.iterations
        turn, offset = divmod(episode - 1 - lane, self.config.lanes)
        return in_range and offset == 0 and turn >= 0 and turn * self.config.iterations + iteration < self._round

    def _label(self, episode: int) -> int:
        """Position of the episode's target, and so of its price."""
        return (episode - 1) % max(1, len(self.config.targets))

    def _target_state(self, episode: int) -> float | None:
        """Fourth column of the states: the target, where there are several."""
        return self.config.target(episode) if len(self.config.targets) > 1 else None

    def _propose(self) -> list[_Plan]:
        if self._round == 0:
            return [
                _Plan(Proposal(0, 0, position, mask.sizes), {}, 0.0)
                for position, mask in enumerate(self._equal, start=1)
            ]
        with cpu_threads(AGENT_THREADS):
            return [self._propose_lane(lane) for lane in range(self.config.lanes)]

    def _propose_lane(self, lane: int) -> _Plan:
        start = time.perf_counter()
        turn, step = divmod(self._round - 1, self.config.iterations)
        episode, iteration = turn * self.config.lanes + lane + 1, step + 1
        if iteration == 1:
            self._lanes[lane] = self._fresh_lane()
        now = self._lanes[lane]
        choices = {}
        for side, rows in self.environment.sides.items():
            states = self.environment.state(rows, now.sizes[rows], now.ratios[rows], self._target_state(episode))
            where = (lane, episode, iteration)
            choices[side] = choose(self._agents[side], self.config, states, now.noise[rows], side, where)
        sizes = np.concatenate([choices[side].chosen for side in SIDES])
        target = self.config.target(episode)
        if target is not None:
            sizes = masks.project(
                sizes.astype(np.float64), self.config.max_size, target, self.environment.degrees
            ).sizes
        return _Plan(Proposal(lane, episode, iteration, sizes), choices, time.perf_counter() - start)

    def _complete(self, plans: list[_Plan]) -> None:
        """Learn from a whole round, in lane order, and go on to the next."""
        outcomes, self._outcomes, self._plans = self._outcomes, {}, None
        with cpu_threads(AGENT_THREADS):
            for plan in plans:
                self._learn(plan, outcomes[plan.proposal.place])
        if self.config.budget_mode == "target" and self._round > 0:
            self._move_prices()
        self._round += 1

    def _learn(self, plan: _Plan, outcome: Outcome) -> None:
        start = time.perf_counter()
        environment, proposal = self.environment, plan.proposal
        quality = environment.quality(outcome.quality)
        ratios = environment.quality_ratio(quality)
        mask = PrefixMask(proposal.sizes, self.config.max_size)
        candidate = Candidate(
            episode=proposal.episode,
            iteration=proposal.iteration,
            lane=proposal.lane,
            sparsity=float(masks.sparsity(mask)),
            quality_ratio=float(ratios.mean(dtype=np.float64)),
            users_quality_ratio=float(ratios[: environment.n_users].mean(dtype=np.float64)),
            quality=float(outcome.quality[environment.counted].mean(dtype=np.float64)),
            origin="search" if plan.choices else "equal",
            mask=mask,
        )
        self.visited.append(candidate)
        if not plan.choices:
            return
        label, lane = self._label(proposal.episode), self._lanes[proposal.lane]
        for side, rows in environment.sides.items():
            transition: Arrays = {
                "sizes_before": lane.sizes[rows],
                "ratios_before": lane.ratios[rows],
                "sizes": proposal.sizes[rows],
                "ratios": ratios[rows],
                "raw": quality[rows],
            }
            self._replays[side].add(transition, label)
        update_start = time.perf_counter()
        losses = {side: self._update(side, proposal) for side in SIDES}
        update_seconds = time.perf_counter() - update_start
        noise = np.concatenate([plan.choices[side].noise for side in SIDES])
        self._lanes[proposal.lane] = _Lane(proposal.sizes, ratios, noise)
        gains = quality if self.config.reward_quality == "raw" else ratios
        price = self.prices[label]
        row: dict[str, Any] = {
            "episode": proposal.episode,
            "iteration": proposal.iteration,
            "lane": proposal.lane,
            "target_sparsity": self.config.target(proposal.episode),
            "memory_weight": price,
            "sparsity": candidate.sparsity,
            "raw_sparsity": 1 - _mean(np.concatenate([plan.choices[s].actor for s in SIDES])) / self.config.max_size,
            "quality": candidate.quality,
            "quality_ratio": candidate.quality_ratio,
        }
        for side, rows in environment.sides.items():
            sizes, choice = proposal.sizes[rows], plan.choices[side]
            means: tuple[npt.NDArray[Any], ...] = (choice.actor, choice.noisy, choice.chosen, sizes, ratios[rows])
            rewards = environment.reward(gains[rows], sizes, price)
            values = [*map(_mean, means), _mean(rewards), float(sizes.std(dtype=np.float64)), losses[side]]
            row |= dict(zip(side_columns(side), values, strict=True))
        row |= {
            "fit_seconds": outcome.fit_seconds,
            "evaluation_seconds": outcome.evaluation_seconds,
            "propose_seconds": plan.seconds,
            "update_seconds": update_seconds,
            "agent_seconds": plan.seconds + time.perf_counter() - start,
            "checkpoint_seconds": 0.0,
        }
        self._rows.append(row)

    def _update(self, side: str, proposal: Proposal) -> float:
        """The gradient steps of a told fit (lines 13-14 of Algorithm 1); returns the mean loss of the critics."""
        environment, config, replay = self.environment, self.config, self._replays[side]
        if not len(replay.entities):
            return math.nan
        offset = environment.sides[side].start
        prices = np.array(self.prices, dtype=np.float32)
        targets = np.array(config.targets, dtype=np.float32) if len(config.targets) > 1 else None
        losses = []
        for step in range(config.agent.gradient_steps):
            seed = derive_seed(config.seed, "replay", side, *proposal.place, step)
            generator = np.random.Generator(np.random.PCG64(seed))
            entities, drawn = replay.sample(config.agent.batch_size, generator)
            wanted = None if targets is None else targets[drawn["label"]]
            rows = entities + offset
            rewards = environment.reward(
                drawn["raw" if config.reward_quality == "raw" else "ratios"], drawn["sizes"], prices[drawn["label"]]
            )
            losses.append(
                self._agents[side].update(
                    environment.state(rows, drawn["sizes_before"], drawn["ratios_before"], wanted),
                    sizes_to_actions(drawn["sizes"], config.max_size),
                    rewards,
                    environment.state(rows, drawn["sizes"], drawn["ratios"], wanted),
                    generator,
                )
            )
        return sum(losses) / len(losses)

    def _move_prices(self) -> None:
        """Raise the memory weight of a target whose actors want more than it allows, lower it where they want less.

        price * exp(rate * clip(density / (1 - target) - 1, -1, 1)), density: of the actors' sizes before noise, the
        mean over the lanes that served the target in this round.
        """
        for label, target in enumerate(self.config.targets):
            wanted = [1 - row["raw_sparsity"] for row in self.last if self._label(row["episode"]) == label]
            if wanted:
                excess = sum(wanted) / len(wanted) / (1 - target) - 1
                self.prices[label] *= math.exp(self.config.memory_weight_rate * min(1.0, max(-1.0, excess)))

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the search depends on: `arrays` by name, and `values` that JSON can hold.

        The proposals of an unfinished round are not in it: ask() gives the same ones again.
        """
        arrays: Arrays = {}
        for side in SIDES:
            arrays |= {f"{side}.agent.{name}": value for name, value in self._agents[side].state_dict().items()}
            arrays |= {f"{side}.replay.{name}": value for name, value in self._replays[side].state_dict().items()}
        for name in ("sizes", "ratios", "noise"):
            arrays[f"lanes.{name}"] = np.stack([getattr(lane, name) for lane in self._lanes])
        arrays |= {f"visited.{name}": value for name, value in to_columns(self.visited, self.environment.n).items()}
        told = list(self._outcomes.values())
        if told:
            arrays["told.quality"] = np.stack([outcome.quality for outcome in told])
        values = {
            "round": self._round,
            "prices": self.prices,
            "rows": self._rows,
            "told": [[*outcome.place, outcome.fit_seconds, outcome.evaluation_seconds] for outcome in told],
        }
        return {"arrays": arrays, "values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put a state_dict of a search with the same config, data and reference back in place."""
        arrays, values = state["arrays"], state["values"]

        def below(prefix: str) -> Arrays:
            return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

        for side in SIDES:
            self._agents[side].load_state_dict(below(f"{side}.agent."))
            self._replays[side].load_state_dict(below(f"{side}.replay."))
        parts = zip(arrays["lanes.sizes"], arrays["lanes.ratios"], arrays["lanes.noise"], strict=True)
        self._lanes = [_Lane(*(part.copy() for part in lane)) for lane in parts]
        self.visited = from_columns(below("visited."), self.config.max_size)
        self._round, self.prices = int(values["round"]), list(values["prices"])
        self._rows = [dict(row) for row in values["rows"]]
        self._plans, self._outcomes = None, {}
        for position, (lane, episode, iteration, *seconds) in enumerate(values["told"]):
            outcome = Outcome(lane, episode, iteration, arrays["told.quality"][position].copy(), *seconds)
            self._outcomes[outcome.place] = outcome


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean(dtype=np.float64))
