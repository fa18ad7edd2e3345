"""The search of Algorithm 1 by ask and tell: it proposes sizes and learns from what others found by fitting them.

It trains no recommender and knows no cluster: a loop in this process and workers elsewhere drive the same object. A
round is one proposal a lane; it is learned from in lane order when its last outcome is told, so the order in which
outcomes arrive changes nothing.
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess import masks
from ciess.agent.policy import Choice
from ciess.config.search import SearchConfig
from ciess.devices import cpu_threads
from ciess.errors import SearchError
from ciess.masks.mask import PrefixMask
from ciess.search.candidates import Candidate, best_searched, candidate_of, from_columns, to_columns
from ciess.search.environment import Environment
from ciess.search.history import history_row
from ciess.search.learner import Arrays, Learner, below
from ciess.search.proposals import Outcome, Proposal, Slot
from ciess.storage.columns import HISTORY, SIDES
from ciess.storage.storage import Storage

ROUNDING = np.float32(1e-6)
"""How far a quality may lie above 1: a device may sum a perfect user's gains in another order than the ideal ones."""

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
        # Its run directory, for those who are handed the search: it writes nothing itself.
        self.run: Storage | None = None
        for budget in config.budgets:
            masks.budget(environment.n, config.max_size, budget, environment.bounds)
        self.visited: list[Candidate] = []
        self._visited_slots: set[Slot] = set()
        self._rows: list[dict[str, Any]] = []
        self._outcomes: dict[Slot, Outcome] = {}
        self._plans: list[_Plan] | None = None
        self._learner = Learner(config, environment)
        self._lanes = [self._fresh_lane() for _ in range(config.lanes)]
        self._equal = self._equal_masks()
        self._round = 0 if self._equal else 1

    @property
    def prices(self) -> list[float]:
        """The memory weight now: one, or one a target."""
        return list(self._learner.prices)

    @property
    def rounds(self) -> int:
        """Rounds of the whole search, the one of equal sizes not counted."""
        return self.config.episodes // self.config.lanes * self.config.iterations

    @property
    def done(self) -> bool:
        """Whether every outcome has been told."""
        return self._round > self.rounds

    @property
    def mid_round(self) -> bool:
        """Whether a part of this round's outcomes has been told."""
        return bool(self._outcomes)

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
    def rows(self) -> list[dict[str, Any]]:
        """Rows of history.parquet so far, by its columns."""
        return [dict(row) for row in self._rows]

    @property
    def last(self) -> list[dict[str, Any]]:
        """Rows of the last completed round, by the columns of history.parquet."""
        return self._rows[-self.config.lanes :]

    def candidates(self, sparsity: float, count: int | None = None) -> list[Candidate]:
        """The best searched masks for a budget (Eq. 15).

        Args:
            sparsity: the budget, share of the table that is removed.
            count: l, by default that of the config.

        Returns:
            masks, best first; fewer, or none, where no more keep the budget.
        """
        return best_searched(self.visited, self.config, sparsity, count)

    def ask(self) -> list[Proposal]:
        """The untold proposals of this round: the same ones until they are told.

        Returns:
            proposals with sizes int16[n]; none when the search is done.
        """
        if self.done:
            return []
        if self._plans is None:
            self._plans = self._propose()
        return [plan.proposal for plan in self._plans if plan.proposal.slot not in self._outcomes]

    def tell(self, outcome: Outcome) -> bool:
        """Take the outcome of a proposal, in any order; one that is known already changes nothing.

        Args:
            outcome: what a fit of the proposed sizes found, with quality float32[n_users].

        Returns:
            whether it was new.

        Raises:
            SearchError: it is not of this or an earlier round, or its qualities are not numbers in [0, 1], one a user.
            FitError: the agents break down as they learn from it.
        """
        if outcome.slot in self._visited_slots:
            return False
        if self._plans is None:
            self.ask()
        plans = {plan.proposal.slot: plan for plan in self._plans or []}
        if outcome.slot not in plans:
            expected = f"one of {', '.join(map(str, plans))}" if plans else "none, as the search is done"
            raise SearchError(
                f"Found an outcome for (lane, episode, iteration) {outcome.slot}, but expected {expected}. Tell "
                "outcomes of what ask() gave."
            )
        if outcome.slot in self._outcomes:
            return False
        self._outcomes[outcome.slot] = dataclasses.replace(outcome, quality=self._checked_quality(outcome))
        if len(self._outcomes) == len(plans):
            self._complete(list(plans.values()))
        return True

    def record_checkpoint(self, seconds: float) -> None:
        """Note what writing a checkpoint took, in the rows of the last completed round.

        Args:
            seconds: of writing.
        """
        for row in self.last:
            row["checkpoint_seconds"] += seconds / len(self.last)

    def _fresh_lane(self) -> _Lane:
        """s^0: everyone at max_size, or the largest size it may have, nothing lost (line 4 of Algorithm 1)."""
        n = self.environment.n
        return _Lane(self.environment.bounds.high.copy(), np.ones(n, np.float32), np.zeros(n))

    def _equal_masks(self) -> list[PrefixMask]:
        """Equal sizes at each budget, each choice of sizes once."""
        config, environment = self.config, self.environment
        if not config.include_equal:
            return []
        found = [
            mask
            for budget in config.budgets
            for mask in masks.equals(config.max_size, budget, environment.degrees, environment.bounds)
        ]
        return list({mask.sizes.tobytes(): mask for mask in found}.values())

    def _checked_quality(self, outcome: Outcome) -> npt.NDArray[np.float32]:
        """A copy of the outcome's qualities: the teller may use its array again."""
        quality = np.array(outcome.quality, dtype=np.float32)
        n_users = self.environment.n_users
        if quality.shape != (n_users,):
            found = f"an array of shape {quality.shape}"
        elif len(wrong := quality[~((quality >= 0) & (quality <= 1 + ROUNDING))]):
            found = f"{len(wrong):,} value{'s' * (len(wrong) > 1)} such as {wrong[0]!s}"
        else:
            return np.minimum(quality, np.float32(1))
        raise SearchError(
            f"The outcome of (lane, episode, iteration) {outcome.slot} holds {found}. Expected {n_users:,} numbers in "
            "[0, 1], one a user. Tell eval(e_u) of Eq. 8, as a fit of the proposed sizes finds it on this search's "
            "data."
        )

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
        choices = self._learner.choose((lane, episode, iteration), now.sizes, now.ratios, now.noise)
        sizes = np.concatenate([choices[side].chosen for side in SIDES])
        target = self.config.target(episode)
        if target is not None:
            wanted = sizes.astype(np.float64)
            degrees, bounds = self.environment.degrees, self.environment.bounds
            sizes = masks.project(wanted, self.config.max_size, target, degrees, bounds).sizes
        return _Plan(Proposal(lane, episode, iteration, sizes), choices, time.perf_counter() - start)

    def _complete(self, plans: list[_Plan]) -> None:
        """Learn from a whole round, in lane order, and go on to the next."""
        outcomes, self._outcomes, self._plans = self._outcomes, {}, None
        with cpu_threads(AGENT_THREADS):
            for plan in plans:
                self._learn(plan, outcomes[plan.proposal.slot])
        if self.config.budget_mode == "target":
            self._learner.move_prices((row["episode"], 1 - row["raw_sparsity"]) for row in self.last)
        self._round += 1

    def _learn(self, plan: _Plan, outcome: Outcome) -> None:
        start = time.perf_counter()
        quality = self.environment.quality(outcome.quality)
        ratios = self.environment.quality_ratio(quality)
        origin = "search" if plan.choices else "equal"
        counted, max_size = self.environment.counted, self.config.max_size
        candidate = candidate_of(plan.proposal, outcome, ratios, counted, max_size, origin)
        self.visited.append(candidate)
        self._visited_slots.add(candidate.slot)
        if not plan.choices:
            return
        proposal, before = plan.proposal, self._lanes[plan.proposal.lane]
        transition: Arrays = {
            "sizes_before": before.sizes,
            "ratios_before": before.ratios,
            "sizes": proposal.sizes,
            "ratios": ratios,
            "raw": quality,
        }
        self._learner.remember(transition, proposal.episode)
        update_start = time.perf_counter()
        losses = self._learner.update(proposal.slot)
        update_seconds = time.perf_counter() - update_start
        noise = np.concatenate([plan.choices[side].noise for side in SIDES])
        self._lanes[proposal.lane] = _Lane(proposal.sizes, ratios, noise)
        row = history_row(candidate, self.config, self._learner, plan.choices, transition, losses)
        seconds = {
            "fit_seconds": outcome.fit_seconds,
            "evaluation_seconds": outcome.evaluation_seconds,
            "propose_seconds": plan.seconds,
            "walk_seconds": sum(choice.walk_seconds for choice in plan.choices.values()),
            "update_seconds": update_seconds,
            "agent_seconds": plan.seconds + time.perf_counter() - start,
            "checkpoint_seconds": 0.0,
        }
        self._rows.append(row | seconds)

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the search depends on.

        A snapshot: what the search does later does not change it. The proposals of an unfinished round are not in it:
        ask() gives the same ones again.

        Returns:
            `arrays` by name, and `values` that JSON can hold.
        """
        arrays = self._learner.state_dict()
        for name in ("sizes", "ratios", "noise"):
            arrays[f"lanes.{name}"] = np.stack([getattr(lane, name) for lane in self._lanes])
        arrays |= {f"visited.{name}": value for name, value in to_columns(self.visited, self.environment.n).items()}
        told = list(self._outcomes.values())
        if told:
            arrays["told.quality"] = np.stack([outcome.quality for outcome in told])
        values = {
            "round": self._round,
            "prices": self.prices,
            "rows": self.rows,
            "told": [[*outcome.slot, outcome.fit_seconds, outcome.evaluation_seconds] for outcome in told],
        }
        return {"arrays": arrays, "values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put a state_dict of a search with the same config, data and reference back in place.

        Its config may have had fewer episodes: the search then goes on where that one ended.

        Args:
            state: as `state_dict` gives it.
        """
        arrays, values = state["arrays"], state["values"]
        self._learner.load_state_dict(arrays)
        self._learner.prices = list(values["prices"])
        parts = zip(arrays["lanes.sizes"], arrays["lanes.ratios"], arrays["lanes.noise"], strict=True)
        self._lanes = [_Lane(*(part.copy() for part in lane)) for lane in parts]
        self.visited = from_columns(below(arrays, "visited."), self.config.max_size)
        self._visited_slots = {candidate.slot for candidate in self.visited}
        self._round = int(values["round"])
        self._rows = [dict(row) for row in values["rows"]]
        self._plans, self._outcomes = None, {}
        for position, (lane, episode, iteration, *seconds) in enumerate(values["told"]):
            outcome = Outcome(lane, episode, iteration, arrays["told.quality"][position].copy(), *seconds)
            self._outcomes[outcome.slot] = outcome
