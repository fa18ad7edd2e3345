"""An outcome of an earlier round, told again, changes nothing, also where the search was put back from its state."""

import itertools

import numpy as np
import pytest

from ciess.config.search import SearchConfig
from ciess.data import Pairs
from ciess.errors import SearchError
from ciess.search.environment import Environment
from ciess.search.proposals import Outcome, Slot
from ciess.search.search import Search

N_USERS, N_ITEMS, MAX_SIZE = 3, 2, 8
LANES, EPISODES, ITERATIONS = 2, 4, 2
SLOTS = set(itertools.product(range(-1, LANES + 1), range(-1, EPISODES + 2), range(-1, ITERATIONS + 4)))
"""All slots of the search, and others around them."""


@pytest.fixture
def search() -> Search:
    """One round of equal sizes, and two episodes of two iterations in each of two lanes."""
    train = Pairs.sorted(np.array([0, 1, 2]), np.array([0, 1, 1]))
    reference = np.full(N_USERS + N_ITEMS, 0.5, np.float32)
    environment = Environment(train, N_USERS, N_ITEMS, MAX_SIZE, reference, np.ones(N_USERS + N_ITEMS, np.bool_))
    sizes = {"max_size": MAX_SIZE, "lanes": LANES, "episodes": EPISODES, "iterations": ITERATIONS}
    agent = {"hidden": 4, "batch_size": 4}
    config = SearchConfig(
        **sizes, min_size=1, start="fresh", agent=agent, sparsities=(0.5, 0.75), device="cpu", threads=1
    )  # type: ignore[arg-type]
    return Search(config, environment)


def outcome(slot: Slot, quality: float = 0.5) -> Outcome:
    return Outcome(*slot, np.full(N_USERS, quality, np.float32), 1.0, 1.0)


def restored(search: Search) -> Search:
    found = Search(search.config, search.environment)
    found.load_state_dict(search.state_dict())
    return found


def test_what_was_told_is_known_and_all_else_refused_after_every_outcome(search: Search) -> None:
    told: set[Slot] = set()
    for _ in range(search.fits + 1):
        for known in (search, restored(search)):
            visited, rows, untold = len(known.visited), known.rows, [proposal.slot for proposal in known.ask()]
            # Another quality under a slot that was told: the first one stands.
            assert not any(known.tell(outcome(slot, 0.25)) for slot in sorted(told))
            for slot in sorted(SLOTS - told - set(untold)):
                with pytest.raises(SearchError, match=r"^Found an outcome for "):
                    known.tell(outcome(slot))
            assert (len(known.visited), known.rows, known.fits_done) == (visited, rows, len(told))
            assert [proposal.slot for proposal in known.ask()] == untold
        # The last one first: the order in which outcomes arrive is free.
        for slot in untold[-1:]:
            assert search.tell(outcome(slot))
            told.add(slot)
    assert search.done
    assert told < SLOTS
