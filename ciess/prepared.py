"""What fits share: built once a process for a data set and device, and reused by every fit on it."""

import ctypes
import functools
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ciess.data import Interactions
from ciess.errors import InputError
from ciess.metrics import PairLookup
from ciess.models.graph import Graph, Normalisation
from ciess.sampling import Sampler


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


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep the memory of freed tensors for the next step instead of giving it back to the system.

    Every step makes tensors of the same sizes again; fetching their pages anew took a third of an NGCF step. Returns
    whether the C library took the settings; elsewhere steps are slower, and results the same.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3
        return bool(library.mallopt(trim_threshold, 1 << 30) and library.mallopt(mmap_threshold, 1 << 30))
    except (OSError, AttributeError):
        return False


def prepare(data: Interactions, device: torch.device) -> Prepared:
    """The shared parts of this very object on this device; they go when the data goes."""
    keep_freed_memory()
    by_device = _CACHE.setdefault(data, {})
    if str(device) not in by_device:
        by_device[str(device)] = Prepared(data, device)
    return by_device[str(device)]


def resolve_device(name: str) -> torch.device:
    """The device of a config. Raises InputError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device: torch.device | None
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"The device is {name!r}, but auto, cpu, cuda or cuda:N was expected. Choose one of these.")
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise InputError(
            f"The device is {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices that torch "
            f"{torch.__version__} can use. Choose --device cpu, or install a CUDA build of torch."
        )
    return device


@contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """Run with this many torch threads, whatever the environment says, and put the old number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
