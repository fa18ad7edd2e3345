"""The replay buffer of one side: whole iterations go in at once, single transitions are drawn (section 2.2.4)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


class Replay:
    """The last iterations of all entities of a side, first in, first out.

    Kept as arrays [capacity, entities] by name, so that adding and drawing need no Python loop. What a transition
    holds is up to the caller; the reward is not in it, as its memory weight may change after the fit.
    """

    def __init__(self, capacity: int, columns: Mapping[str, np.dtype[Any]], learnable: npt.NDArray[np.bool_]) -> None:
        """capacity: iterations. columns: name -> type. learnable: bool[entities], those that are ever drawn."""
        self.capacity, self.entities = capacity, np.flatnonzero(learnable)
        self._columns: Arrays = {
            name: np.empty((capacity, len(learnable)), dtype=dtype) for name, dtype in columns.items()
        }
        self._labels = np.zeros(capacity, dtype=np.int64)
        self._added = 0

    def __len__(self) -> int:
        """Iterations held."""
        return min(self._added, self.capacity)

    def add(self, columns: Mapping[str, npt.NDArray[Any]], label: int = 0) -> None:
        """Put one iteration in: an array[entities] a column, and one label for all of them."""
        slot = self._added % self.capacity
        for name, values in self._columns.items():
            values[slot] = columns[name]
        self._labels[slot] = label
        self._added += 1

    def sample(self, count: int, generator: np.random.Generator) -> tuple[npt.NDArray[np.int64], Arrays]:
        """`count` transitions, uniformly and with replacement: entities int64[count], and each column [count].

        The column `label` holds the iteration's label. There must be at least one iteration and learnable entity.
        """
        slots = generator.integers(len(self), size=count)
        entities = self.entities[generator.integers(len(self.entities), size=count)]
        drawn = {name: values[slots, entities] for name, values in self._columns.items()}
        return entities, drawn | {"label": self._labels[slots]}

    def state_dict(self) -> Arrays:
        """Copies of what it holds: arrays [iterations held, entities], `label`, and how many were ever `added`."""
        held = {name: values[: len(self)].copy() for name, values in self._columns.items()}
        return held | {"label": self._labels[: len(self)].copy(), "added": np.array(self._added)}

    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put a state_dict back in place."""
        self._added = int(state["added"])
        for name, values in self._columns.items():
            values[: len(self)] = state[name]
        self._labels[: len(self)] = state["label"]
