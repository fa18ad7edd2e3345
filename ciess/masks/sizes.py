"""Sizes by rule: full, equal, mixed random, and the projection of wanted sizes to a budget."""

from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from ciess.errors import BudgetError
from ciess.masks.bounds import SizeBounds
from ciess.masks.budget import budget, exact
from ciess.masks.mask import PrefixMask


def full(n: int, max_size: int, bounds: SizeBounds | None = None) -> PrefixMask:
    """The uncompressed table: every size is max_size, or the largest that the bounds of n rows allow."""
    return PrefixMask(SizeBounds.uniform(n, 1, max_size).high if bounds is None else bounds.high.copy(), max_size)


def equal(
    n: int,
    max_size: int,
    sparsity: float | str | Fraction,
    rule: Literal["floor", "round", "filled"] = "floor",
    degrees: npt.NDArray[np.int64] | None = None,
    bounds: SizeBounds | None = None,
) -> PrefixMask:
    """Equal sizes (section 3.1, ES): 25 / 12 / 6 of 128 at 80 / 90 / 95 %.

    Args:
        n: rows of the table.
        max_size: columns of the full table, d_max.
        sparsity: share of the table that is removed.
        rule: `floor` keeps the budget; `round` takes the nearest size, which may break the budget; `filled` is floor
            with one more dimension for the rows of highest degree until the budget is used up to the last parameter.
        degrees: int64[n], needed for `filled`.
        bounds: of the sizes of n rows: rows that may have none share nothing; by default 1 to max_size.

    Returns:
        the mask.

    Raises:
        BudgetError: the sparsity cannot be met, or `filled` lacks degrees.
    """
    bounds = SizeBounds.uniform(n, 1, max_size) if bounds is None else bounds
    entries = budget(n, max_size, sparsity, bounds)
    rows = np.flatnonzero(bounds.high > 0)
    size = min(max_size, entries // len(rows))
    if rule == "round":
        size = min(max_size, max(1, round(float((1 - exact(sparsity)) * n * max_size / len(rows)))))
    sizes = bounds.high.copy()
    sizes[rows] = size
    if rule == "filled" and size < max_size:
        if degrees is None or len(degrees) != n:
            raise BudgetError(f"Filled equal sizes need the degrees of all {n} rows. Pass degrees=.")
        in_line = rows[np.argsort(-degrees[rows], kind="stable")]
        sizes[in_line[: entries - int(sizes.sum(dtype=np.int64))]] += 1
    return PrefixMask(sizes, max_size)


def equals(
    max_size: int,
    sparsity: float | str | Fraction,
    degrees: npt.NDArray[np.int64],
    bounds: SizeBounds | None = None,
) -> list[PrefixMask]:
    """The equal sizes that stand beside every search at this budget: plain, and `filled` where that is another mask.

    Plain ones that keep nothing do not stand.
    """
    plain = equal(len(degrees), max_size, sparsity, bounds=bounds)
    filled = equal(len(degrees), max_size, sparsity, "filled", degrees, bounds)
    return [mask for mask in (plain, filled) if mask.kept and (mask is plain or mask.kept != plain.kept)]


def mixed(
    n: int,
    max_size: int,
    sparsity: float | str | Fraction,
    seed: int,
    fill: bool = True,
    bounds: SizeBounds | None = None,
) -> PrefixMask:
    """Mixed and random sizes (section 3.1, MR): uniform on 1..h with h = floor(2 (1 - c) d_max - 1).

    Over the budget, uniformly drawn rows lose a dimension until it is met. Under it, with `fill`, uniformly drawn
    rows gain one until it is used to the last parameter. Rows that may have no dimension take no part in it.
    """
    bounds = SizeBounds.uniform(n, 1, max_size) if bounds is None else bounds
    entries = budget(n, max_size, sparsity, bounds)
    taking = np.flatnonzero(bounds.high > 0)
    mean = (1 - exact(sparsity)) * n * max_size / len(taking)
    largest = max(1, min(max_size, int(2 * mean - 1)))
    generator = np.random.Generator(np.random.PCG64(seed))
    sizes = generator.integers(1, largest + 1, size=len(taking)).astype(np.int64)
    low = bounds.low[taking]
    while (excess := int(sizes.sum()) - entries) > 0:
        rows = np.flatnonzero(sizes > low)
        sizes[generator.permutation(rows)[:excess]] -= 1
    while fill and (missing := entries - int(sizes.sum())) > 0:
        rows = np.flatnonzero(sizes < max_size)
        if not len(rows):
            break
        sizes[generator.permutation(rows)[:missing]] += 1
    found = np.zeros(n, dtype=np.int16)
    found[taking] = sizes
    return PrefixMask(found, max_size)


def project(
    actions: npt.NDArray[np.floating],
    max_size: int,
    sparsity: float | str | Fraction,
    degrees: npt.NDArray[np.int64],
    bounds: SizeBounds | None = None,
) -> PrefixMask:
    """The sizes nearest to a common multiple of `actions` that use the budget to the last parameter.

    Every size is floor(scale * action) within its bounds, with the largest scale that fits; what is left goes, one
    dimension each, to the rows next in line: by action, then degree, then row. So a larger action never gets a smaller
    size, and a larger budget never takes a dimension from any row. A row whose action is 0 keeps its smallest size.

    Args:
        actions: float[n], wanted sizes, positive, or 0 where the smallest size is 0.
        max_size: columns of the full table, d_max.
        sparsity: share of the table that is removed.
        degrees: int64[n].
        bounds: of the sizes of n rows, by default 1 to max_size.

    Returns:
        the mask; where every wanted row is as large as it may be, it keeps less than the budget.

    Raises:
        BudgetError: the sparsity cannot be met, or a wanted size is not positive and finite.
    """
    n = len(actions)
    bounds = SizeBounds.uniform(n, 1, max_size) if bounds is None else bounds
    entries = budget(n, max_size, sparsity, bounds)
    wanted = np.asarray(actions, dtype=np.float64)
    if not (np.isfinite(wanted).all() and ((wanted > 0) | ((wanted == 0) & (bounds.low == 0))).all()):
        raise BudgetError("Wanted sizes must be positive and finite; found some that are not. Give sizes >= 1.")
    if not (wanted > 0).any():
        return PrefixMask(bounds.low.copy(), max_size)
    low_sizes, high_sizes = bounds.low.astype(np.int64), bounds.high.astype(np.int64)

    def scaled(scale: float) -> npt.NDArray[np.int64]:
        return np.clip(np.floor(np.minimum(scale * wanted, max_size)), low_sizes, high_sizes).astype(np.int64)

    low, high = 0.0, 2 * max_size / float(wanted[wanted > 0].min())
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
