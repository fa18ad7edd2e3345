"""The search of Algorithm 1 by ask and tell: it proposes sizes and learns from what others found by fitting them.

It trains no recommender and knows no cluster: a loop in this process and workers elsewhere drive the same object. A
round is one proposal a lane; it is learned from in lane order when its last outcome is told, so the order in which
outcomes arrive changes nothing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess import masks
from ciess.config.search import SearchConfig
from ciess.devices import cpu_threads
from ciess.errors import SearchError
from ciess.search.beside import plans_beside
from ciess.search.candidates import Candidate, best_searched, candidate_of, from_columns, select, to_columns
from ciess.search.environment import Environment
from ciess.search.learner import below
from ciess.search.proposals import Outcome, Proposal, Slot
from ciess.search.strategies.kinds import KindsStrategy
from ciess.search.strategies.strategy import AGENT_THREADS, Plan, Result, Strategy
from ciess.search.strategies.td3 import Td3Strategy
from ciess.search.verdict import Verdict
from ciess.storage.columns import HISTORY
from ciess.storage.storage import Storage
from ciess.training.starts.rule import Rule

ROUNDING = np.float32(1e-6)
"""How far a quality may lie above 1: a device may sum a perfect user's gains in another order than the ideal ones."""


class Search:
    """A search in progress. Equal config, data and reference give equal proposals, whoever fits them and where."""

    def __init__(
        self, config: SearchConfig, environment: Environment, rules: Mapping[float, Rule] | None = None
    ) -> None:
        """Begin a search.

        Args:
            config: settings.
            environment: states, quality ratios and rewards.
            rules: of `sized`, by budget: strategies `kinds` and `random` begin there, and its sizes stand beside the
                search.

        Raises:
            BudgetError: budgets that cannot be met.
            SearchError: a strategy without the rules that it begins with.
        """
        self.config, self.environment = config, environment
        # Its run directory, for those who are handed the search: it writes nothing itself.
        self.run: Storage | None = None
        self.verdicts: list[Verdict] = []
        for budget in config.budgets:
            masks.budget(environment.n, config.max_size, budget, environment.bounds)
        self.visited: list[Candidate] = []
        self._visited_slots: set[Slot] = set()
        self._rows: list[dict[str, Any]] = []
        self._outcomes: dict[Slot, Outcome] = {}
        self._plans: list[Plan] | None = None
        self._rules = {budget: rule for budget, rule in (rules or {}).items() if budget in config.budgets}
        self._strategy = self._new_strategy()
        self._beside = plans_beside(config, environment, self._rules)
        self._round = 0 if self._beside else 1

    @property
    def prices(self) -> list[float]:
        """The memory weight now: one, or one a target; none without agents."""
        return self._strategy.prices

    @property
    def rounds(self) -> int:
        """Rounds of the whole search, the one of sizes by rule not counted."""
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
        return len(self._beside) + self.rounds * self.config.lanes

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

    def best(self, sparsity: float) -> list[Candidate]:
        """The best masks for a budget, sizes by popularity among them.

        Args:
            sparsity: the budget, share of the table that is removed.

        Returns:
            masks, best first.
        """
        standing = [candidate for candidate in self.visited if candidate.origin != "equal"]
        return select(standing, sparsity, self.config.candidates, self.config.candidate_quality)

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

    def _new_strategy(self) -> Strategy:
        if self.config.strategy == "td3":
            return Td3Strategy(self.config, self.environment, self._rules)
        missing = [budget for budget in self.config.budgets if budget not in self._rules]
        if missing:
            raise SearchError(
                f"Strategy {self.config.strategy} begins at the rule of sized, but none was given for "
                f"{', '.join(f'{budget:g}' for budget in missing)}. Expected one a budget. Give rules=, as "
                "search_rules(data, config) finds them."
            )
        return KindsStrategy(self.config, self.environment, self._rules)

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

    def _propose(self) -> list[Plan]:
        if self._round == 0:
            return list(self._beside)
        with cpu_threads(AGENT_THREADS):
            return self._strategy.propose(self._round)

    def _complete(self, plans: list[Plan]) -> None:
        """Learn from a whole round, in lane order, and go on to the next."""
        outcomes, self._outcomes, self._plans = self._outcomes, {}, None
        with cpu_threads(AGENT_THREADS):
            results = [self._result(plan, outcomes[plan.proposal.slot]) for plan in plans]
            if self._round:
                self._rows += self._strategy.learn(results)
            else:
                self._strategy.see(results)
        for result in results:
            self.visited.append(result.candidate)
            self._visited_slots.add(result.candidate.slot)
        self._round += 1

    def _result(self, plan: Plan, outcome: Outcome) -> Result:
        quality = self.environment.quality(outcome.quality)
        ratios = self.environment.quality_ratio(quality)
        counted, max_size = self.environment.counted, self.config.max_size
        candidate = candidate_of(plan.proposal, outcome, ratios, counted, max_size, plan.origin)
        return Result(plan, outcome, candidate, quality, ratios)

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the search depends on.

        A snapshot: what the search does later does not change it. The proposals of an unfinished round are not in it:
        ask() gives the same ones again.

        Returns:
            `arrays` by name, and `values` that JSON can hold.
        """
        arrays, values = self._strategy.state()
        arrays |= {f"visited.{name}": value for name, value in to_columns(self.visited, self.environment.n).items()}
        told = list(self._outcomes.values())
        if told:
            arrays["told.quality"] = np.stack([outcome.quality for outcome in told])
        values |= {
            "round": self._round,
            "rows": self.rows,
            "told": [
                [*outcome.slot, outcome.fit_seconds, outcome.evaluation_seconds, outcome.choice_quality]
                for outcome in told
            ],
        }
        return {"arrays": arrays, "values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put a state_dict of a search with the same config, data and reference back in place.

        Its config may have had fewer episodes: the search then goes on where that one ended.

        Args:
            state: as `state_dict` gives it.
        """
        arrays, values = dict(state["arrays"]), dict(state["values"])
        self._strategy.load(arrays, values)
        self.visited = from_columns(below(arrays, "visited."), self.config.max_size)
        self._visited_slots = {candidate.slot for candidate in self.visited}
        self._round = int(values["round"])
        self._rows = [dict(row) for row in values["rows"]]
        self._plans, self._outcomes = None, {}
        for position, (lane, episode, iteration, *seconds) in enumerate(values["told"]):
            outcome = Outcome(lane, episode, iteration, arrays["told.quality"][position].copy(), *seconds)
            self._outcomes[outcome.slot] = outcome
