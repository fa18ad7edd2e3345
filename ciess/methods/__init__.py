"""Compression methods, by the name that the command line uses."""

from collections.abc import Callable, Sequence
from fractions import Fraction

from ciess.config import FitConfig
from ciess.data import Interactions
from ciess.methods.compressed import Compressed
from ciess.methods.fixed import equal, full, mixed

METHODS: dict[str, Callable[[Interactions, FitConfig, Sequence[Fraction], int], list[Compressed]]] = {
    "full": full,
    "equal": equal,
    "mixed": mixed,
}
"""Name -> function of (data, config, budgets, seed); what it returns is retrained and tested alike for all methods."""

__all__ = ["METHODS", "Compressed"]
