"""What a search asks of a strategy: the proposals of a round, and what it makes of their outcomes."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ciess.agent.policy import Choice
from ciess.search.candidates import Candidate
from ciess.search.proposals import Outcome, Proposal

AGENT_THREADS = 1
"""Threads of strategies: the bits of a search must not depend on the threads of its fits."""

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Plan:
    """A proposal and how a strategy came to it.

    Attributes:
        proposal: what is to be fitted.
        origin: `search`; `equal` or `sized` for what stands beside it.
        target: sparsity that it was made for, None in penalty mode.
        label: position of the target among the config's, 0 without any.
        choices: of the agents, by side; none where there are no agents.
        seconds: that it took.
    """

    proposal: Proposal
    origin: str = "search"
    target: float | None = None
    label: int = 0
    choices: dict[str, Choice] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Result:
    """A plan with what its short fit found.

    Attributes:
        plan: the plan.
        outcome: what was told.
        candidate: what the search keeps of it.
        quality: Eq. 8 and 9 on the pairs searched by, float32[n].
        ratios: Eq. 7 of these, float32[n].
    """

    plan: Plan
    outcome: Outcome
    candidate: Candidate
    quality: npt.NDArray[np.float32]
    ratios: npt.NDArray[np.float32]


class Strategy(Protocol):
    """Proposes rounds and learns from them, each when its last outcome has been told."""

    @property
    def prices(self) -> list[float]:
        """Memory weights now; none where there are no agents."""

    def see(self, results: list[Result]) -> None:
        """Take note of what stands beside the search, before its first round."""

    def propose(self, number: int) -> list[Plan]:
        """The plans of a round, counted from 1; the same ones until it was learned from."""

    def learn(self, results: list[Result]) -> list[dict[str, Any]]:
        """Learn from a round, in the order of its plans; returns their rows of history.parquet."""

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """All that later proposals depend on: arrays by name, and values that JSON can hold."""

    def load(self, arrays: Arrays, values: dict[str, Any]) -> None:
        """Put a state back in place; other names are left alone."""
