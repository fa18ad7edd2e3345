"""Searches of nineteen rows, and what fits of them would find, for the tests of the search."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from ciess.config.search import SearchConfig
from ciess.data import Pairs
from ciess.search.environment import Environment
from ciess.search.proposals import Outcome, Proposal
from ciess.search.search import Search

N_USERS, N_ITEMS, MAX_SIZE = 11, 8, 16


N = N_USERS + N_ITEMS


CLOCKS = ("propose_seconds", "walk_seconds", "update_seconds", "agent_seconds", "checkpoint_seconds")
"""Columns that a clock fills; those of the fit come with its outcome."""


Sizes = npt.NDArray[np.int16]


Fitter = Callable[[Proposal], Outcome]


def small(**changes: Any) -> SearchConfig:
    agent = {"hidden": 16, "batch_size": 32} | changes.pop("agent", {})
    plain: dict[str, Any] = {
        "episodes": 2,
        "iterations": 3,
        "max_size": MAX_SIZE,
        "min_size": 1,
        "start": "fresh",
        "include_equal": False,
        "sparsities": (0.5, 0.75),
        "device": "cpu",
        "threads": 1,
        "agent": agent,
    }
    return SearchConfig(**plain | changes)


@functools.cache
def world(zero_reference: str = "one", interactions: bool = True) -> Environment:
    """A user and an item for which the reference scores 0, a user without validation items, an untrained item."""
    generator = np.random.default_rng(3)
    met = generator.random((N_USERS, N_ITEMS)) < np.linspace(0.8, 0.1, N_ITEMS)
    met[:, -1] = False
    met[:, -2] = np.arange(N_USERS) == 4
    train = Pairs.sorted(*np.nonzero(met)) if interactions else Pairs.none()
    reference = generator.uniform(0.2, 0.6, N).astype(np.float32)
    reference[[4, N - 2]] = 0
    return Environment(train, N_USERS, N_ITEMS, MAX_SIZE, reference, np.arange(N) != 5, zero_reference)


def fitted(proposal: Proposal, environment: Environment | None = None) -> Outcome:
    """Stands for a short fit: quality grows with a user's own size and with those of its items."""
    known = (environment or world()).train
    gain = proposal.sizes / (proposal.sizes + 4.0)
    sums = np.bincount(known.users, weights=gain[N_USERS + known.items], minlength=N_USERS)
    of_items = sums / np.maximum(1, np.bincount(known.users, minlength=N_USERS))
    quality = np.linspace(0.2, 0.6, N_USERS) * (gain[:N_USERS] + of_items) / 2
    seconds = float(proposal.sizes.sum()) / 8
    return Outcome(*proposal.slot, quality.astype(np.float32), seconds, seconds / 4)


def finish(search: Search, fit: Fitter = fitted) -> Search:
    while proposals := search.ask():
        for proposal in proposals:
            search.tell(fit(proposal))
    return search


def proposed(search: Search, fit: Fitter = fitted) -> list[Proposal]:
    """Every proposal of a search that is told all of them."""
    found: list[Proposal] = []
    while proposals := search.ask():
        found += proposals
        for proposal in proposals:
            search.tell(fit(proposal))
    return found


def bits(values: npt.NDArray[Any]) -> tuple[Any, ...]:
    return values.dtype.str, values.shape, values.tobytes()


def contents(search: Search) -> tuple[Any, ...]:
    """All that two equal searches have in common, in a form that compares by bits."""
    state = search.state_dict()
    values = json.loads(json.dumps(state["values"], allow_nan=False))
    for row in values["rows"]:
        for clock in CLOCKS:
            row.pop(clock)
    values["told"].sort()
    arrays = {name: bits(values) for name, values in state["arrays"].items() if name != "told.quality"}
    by_place = {proposal.slot: bits(proposal.sizes) for proposal in search.ask()}
    return arrays, values, by_place, search.history.drop_columns(list(CLOCKS))


def through_files(state: dict[str, Any]) -> dict[str, Any]:
    """What is left of a state when it was written and read again."""
    return {
        "arrays": load(save(state["arrays"])),
        "values": json.loads(json.dumps(state["values"], allow_nan=False)),
    }


@dataclasses.dataclass
class Spied:
    """Calls of the primitives, in order: (name, side, arguments)."""

    calls: list[tuple[str, str, Any]]

    def of(self, name: str, side: str | None = None) -> list[Any]:
        return [arguments for found, by, arguments in self.calls if found == name and side in (None, by)]


@functools.cache
def in_order(lanes: int) -> Search:
    return finish(Search(small(lanes=lanes, episodes=lanes, include_equal=True), world()))


TWO_TARGETS = {"budget_mode": "target", "targets": (0.5, 0.75)}
