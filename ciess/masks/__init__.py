"""Which entries of the embedding table exist, and how many of them a budget allows (Eq. 1, 2, 5)."""

from ciess.masks.bounds import SizeBounds, size_bounds
from ciess.masks.budget import budget, exact, sparsity
from ciess.masks.mask import Mask, PrefixMask, SparseMask, row_sizes
from ciess.masks.sizes import equal, equals, full, mixed, project

__all__ = [
    "Mask",
    "PrefixMask",
    "SizeBounds",
    "SparseMask",
    "budget",
    "equal",
    "equals",
    "exact",
    "full",
    "mixed",
    "project",
    "row_sizes",
    "size_bounds",
    "sparsity",
]
