"""Sizes by rule: full, equal, mixed random, and the projection of wanted sizes to a budget."""

from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from ciess.errors import BudgetError
from ciess.masks.budget import budget, exact
from ciess.masks.mask import PrefixMask


def full(n: int, max_size: int) -> PrefixMask:
    """The uncompressed table: every size is max_size."""
    return PrefixMask(np.full(n, max_size, dtype=np.int16), max_size)


def equal(
    n: int,
    max_size: int,
    sparsity: float | str | Fraction,
    rule: Literal["floor", "round", "filled"] = "floor",
    degrees: npt.NDArray[np.int64] | None = None,
) -> PrefixMask:
    """Equal sizes (section 3.1, ES): 25 / 12 / 6 of 128 at 80 / 90 / 95 %.

    Args:
        n: rows of the table.
        max_size: columns of the full table, d_max.
        sparsity: share of the table that is removed.
        rule: `floor` keeps the budget; `round` takes the nearest size, which may break the budget; `filled` is floor
            with one more dimension for the rows of highest degree until the budget is used up to the last parameter.
        degrees: int64[n], needed for `filled`.

    Returns:
        the mask.

    Raises:
        BudgetError: the sparsity cannot be met, or `filled` lacks degrees.
    """
    entries = budget(n, max_size, sparsity)
    if rule == "round":
        return PrefixMask(np.full(n, max(1, round((1 - exact(sparsity)) * max_size)), dtype=np.int16), max_size)
    sizes = np.full(n, entries // n, dtype=np.int16)
    if rule == "filled":
        if degrees is None or len(degrees) != n:
            raise BudgetError(f"Filled equal sizes need the degrees of all {n} rows. Pass degrees=.")
        sizes[np.argsort(-degrees, kind="stable")[: entries - int(sizes.sum(dtype=np.int64))]] += 1
    return PrefixMask(sizes, max_size)


def equals(max_size: int, sparsity: float | str | Fraction, degrees: npt.NDArray[np.int64]) -> list[PrefixMask]:
    """The equal sizes that stand beside every search at this budget: plain, and `filled` where that is another mask."""
    plain = equal(len(degrees), max_size, sparsity)
    filled = equal(len(degrees), max_size, sparsity, "filled", degrees)
    return [plain] if filled.kept == plain.kept else [plain, filled]


def mixed(n: int, max_size: int, sparsity: float | str | Fraction, seed: int, fill: bool = True) -> PrefixMask:
    """Mixed and random sizes (section 3.1, MR): uniform on 1..h with h = floor(2 (1 - c) d_max - 1).

    Over the budget, uniformly drawn rows lose a dimension until it is met. Under it, with `fill`, uniformly drawn
    rows gain one until it is used to the last parameter.
    """
    entries = budget(n, max_size, sparsity)
    largest = max(1, min(max_size, int(2 * (1 - exact(sparsity)) * max_size - 1)))
    generator = np.random.Generator(np.random.PCG64(seed))
    sizes = generator.integers(1, largest + 1, size=n).astype(np.int64)
    while (excess := int(sizes.sum()) - entries) > 0:
        rows = np.flatnonzero(sizes > 1)
        sizes[generator.permutation(rows)[:excess]] -= 1
    while fill and (missing := entries - int(sizes.sum())) > 0:
        rows = np.flatnonzero(sizes < max_size)
        sizes[generator.permutation(rows)[:missing]] += 1
    return PrefixMask(sizes.astype(np.int16), max_size)


def project(
    actions: npt.NDArray[np.floating],
    max_size: int,
    sparsity: float | str | Fraction,
    degrees: npt.NDArray[np.int64],
) -> PrefixMask:
    """The sizes nearest to a common multiple of `actions` that use the budget to the last parameter.

    Every size is floor(scale * action) within 1..max_size, with the largest scale that fits; what is left goes, one
    dimension each, to the rows next in line: by action, then degree, then row. So a larger action never gets a smaller
    size, and a larger budget never takes a dimension from any row.

    Args:
        actions: float[n], wanted sizes, positive.
        max_size: columns of the full table, d_max.
        sparsity: share of the table that is removed.
        degrees: int64[n].

    Returns:
        the mask.

    Raises:
        BudgetError: the sparsity cannot be met, or a wanted size is not positive and finite.
    """
    n = len(actions)
    entries = budget(n, max_size, sparsity)
    wanted = np.asarray(actions, dtype=np.float64)
    if not (np.isfinite(wanted).all() and (wanted > 0).all()):
        raise BudgetError("Wanted sizes must be positive and finite; found some that are not. Give sizes >= 1.")

    def scaled(scale: float) -> npt.NDArray[np.int64]:
        return np.clip(np.floor(np.minimum(scale * wanted, max_size)), 1, max_size).astype(np.int64)

    low, high = 0.0, 2 * max_size / float(wanted.min())
    while (middle := (low + high) / 2) not in (low, high):
        if int(scaled(middle).sum()) <= entries:
            low = middle
        else:
            high = middle
    sizes, next_sizes = scaled(low), scaled(high)
    rows = np.flatnonzero(next_sizes > sizes)
    in_line = rows[np.lexsort((rows, -degrees[rows], -wanted[rows]))]
    sizes[in_line[: entries - int(sizes.sum())]] += 1
    return PrefixMask(sizes.astype(np.int16), max_size)
