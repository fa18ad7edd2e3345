"""What fits share: built once a process for a data set and device, and reused by every fit on it."""

import weakref

import torch

from ciess.data import Interactions
from ciess.devices import keep_freed_memory
from ciess.evaluation.ranking import PairLookup
from ciess.models.graph import Graph, Normalisation
from ciess.training.sampling import Sampler


class Prepared:
    """Graphs, sampler and pair look-ups of one data set on one device, each built when first asked for."""

    def __init__(self, data: Interactions, device: torch.device) -> None:
        # Not `data` itself: the cache below must not keep it alive.
        self._parts = {"train": data.train, "valid": data.valid, "test": data.test}
        self.n_users, self.n_items, self.device = data.n_users, data.n_items, device
        self._graphs: dict[Normalisation, Graph] = {}
        self._lookups: dict[str, PairLookup] = {}
        self._sampler: Sampler | None = None

    def graph(self, normalisation: Normalisation | None) -> Graph | None:
        """Graph of the training pairs; None for a backbone without one."""
        if normalisation is None:
            return None
        if normalisation not in self._graphs:
            graph = Graph(self._parts["train"], self.n_users, self.n_items, normalisation)
            self._graphs[normalisation] = graph.to(self.device)
        return self._graphs[normalisation]

    def lookup(self, part: str) -> PairLookup:
        """Pairs of `train`, `valid` or `test`."""
        if part not in self._lookups:
            self._lookups[part] = PairLookup(self._parts[part], self.n_users, self.n_items, self.device)
        return self._lookups[part]

    @property
    def sampler(self) -> Sampler:
        """Sampler of the training pairs."""
        if self._sampler is None:
            self._sampler = Sampler(self._parts["train"], self.n_users, self.n_items, self.device)
        return self._sampler


_CACHE: "weakref.WeakKeyDictionary[Interactions, dict[str, Prepared]]" = weakref.WeakKeyDictionary()


def prepare(data: Interactions, device: torch.device) -> Prepared:
    """The shared parts of this very object on this device; they go when the data goes."""
    keep_freed_memory()
    by_device = _CACHE.setdefault(data, {})
    if str(device) not in by_device:
        by_device[str(device)] = Prepared(data, device)
    return by_device[str(device)]
