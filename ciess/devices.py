"""Where a fit runs: its device, its CPU threads, and the memory that they keep."""

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ciess.errors import InputError

KEPT_BYTES = 1 << 26
"""Largest tensor whose memory is kept."""


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep the memory of freed tensors for the next step instead of giving it back to the system.

    Every step makes tensors of the same sizes again; fetching their pages anew took a third of an NGCF step. Those of
    a million rows go back all the same: kept, they leave holes that the next ones do not fit into. Returns whether
    the C library took the settings; elsewhere steps are slower, and results the same.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3
        return bool(library.mallopt(trim_threshold, 1 << 30) and library.mallopt(mmap_threshold, KEPT_BYTES))
    except (OSError, AttributeError):
        return False


def give_back_memory() -> None:
    """Return what glibc has kept to the system: between the stages of a table, as each makes tensors of other sizes."""
    if keep_freed_memory():
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def resolve_device(name: str) -> torch.device:
    """The device of a config.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        the device; for `auto` CUDA where it is.

    Raises:
        InputError: it is no such name, or the device is not there.
    """
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
