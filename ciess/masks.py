"""Which entries of the embedding table exist, and how many of them a budget allows (Eq. 1, 2, 5).

A mask is one of two things: a `PrefixMask`, that keeps the first `sizes[n]` columns of row n (Eq. 2),
or a `SparseMask`, that keeps any set of entries. Sparsity is counted from the mask in exact arithmetic,
never from zeros in a trained table. Rows are users first, then items.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from ciess.errors import BudgetError

Sizes = npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class PrefixMask:
    """Keeps the first `sizes[n]` columns of row n (Eq. 2).

    sizes: int16[n], each in 0..max_size. A backbone with several tables an entity (NCF) applies the same
    size to each of them, so that the sparsity stays sum(sizes) / (n * max_size).
    """

    sizes: Sizes
    max_size: int

    def __post_init__(self) -> None:
        sizes = np.asarray(self.sizes)
        if sizes.ndim != 1 or sizes.dtype.kind not in "iu":
            raise BudgetError(
                f"Sizes must be one integer a row; found an array of shape {sizes.shape} and type {sizes.dtype}. "
                "Round them before making a mask."
            )
        if len(sizes) and (sizes.min() < 0 or sizes.max() > self.max_size):
            raise BudgetError(
                f"Sizes must lie in 0..{self.max_size}; found {sizes.min()}..{sizes.max()}. "
                "Change the sizes or max_size."
            )
        object.__setattr__(self, "sizes", np.ascontiguousarray(sizes, dtype=np.int16))

    @property
    def kept(self) -> int:
        """Entries kept in one table."""
        return int(self.sizes.sum(dtype=np.int64))

    @property
    def total(self) -> int:
        """Entries of the full table."""
        return len(self.sizes) * self.max_size

    @property
    def width(self) -> int:
        """Columns that hold any kept entry: the others need not exist in a fit."""
        return int(self.sizes.max(initial=0))

    def dense(self, width: int | None = None) -> npt.NDArray[np.bool_]:
        """M of Eq. 2 as bool[n, width], width = max_size unless given."""
        return np.arange(self.max_size if width is None else width) < self.sizes[:, None]


@dataclass(frozen=True, eq=False)
class SparseMask:
    """Keeps any set of entries, in CSR form: of row n the columns `columns[indptr[n]:indptr[n + 1]]`.

    indptr: int64[n + 1]; columns: int16[kept], ascending in each row, in 0..tables * max_size - 1.
    tables: tables an entity of the backbone (2 for NCF: GMF columns first, then those of the tower).
    """

    indptr: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int16]
    max_size: int
    tables: int = 1

    def __post_init__(self) -> None:
        indptr = np.ascontiguousarray(self.indptr, dtype=np.int64)
        columns = np.asarray(self.columns)
        limit = self.tables * self.max_size
        if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != len(columns) or (np.diff(indptr) < 0).any():
            raise BudgetError(
                f"Row pointers must rise from 0 to the number of kept entries ({len(columns)}); "
                f"found {indptr[:1]}..{indptr[-1:]}. Build the mask with SparseMask.from_dense."
            )
        if len(columns) and (columns.min() < 0 or columns.max() >= limit):
            raise BudgetError(
                f"Columns must lie in 0..{limit - 1}; found {columns.min()}..{columns.max()}. "
                "Change the columns or max_size."
            )
        rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        if (np.diff(rows * limit + columns) <= 0).any():
            raise BudgetError(
                "Columns must ascend in each row without repeats; found some that do not. "
                "Build the mask with SparseMask.from_dense."
            )
        object.__setattr__(self, "indptr", indptr)
        object.__setattr__(self, "columns", np.ascontiguousarray(columns, dtype=np.int16))

    @classmethod
    def from_dense(cls, mask: npt.NDArray[np.bool_], max_size: int) -> "SparseMask":
        """Mask from bool[n, tables * max_size]."""
        rows, columns = np.nonzero(mask)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(mask)))])
        return cls(indptr.astype(np.int64), columns.astype(np.int16), max_size, mask.shape[1] // max_size)

    @property
    def kept(self) -> int:
        """Entries kept over all tables."""
        return len(self.columns)

    @property
    def total(self) -> int:
        """Entries of the full tables."""
        return (len(self.indptr) - 1) * self.max_size * self.tables

    @cached_property
    def width(self) -> int:
        """Columns of a table that hold any kept entry."""
        return int((self.columns % self.max_size).max(initial=-1)) + 1

    def dense(self, width: int | None = None) -> npt.NDArray[np.bool_]:
        """M as bool[n, tables * width], width = max_size unless given."""
        mask = np.zeros((len(self.indptr) - 1, self.tables * self.max_size), dtype=np.bool_)
        mask[np.repeat(np.arange(len(mask)), np.diff(self.indptr)), self.columns] = True
        if width is None or width == self.max_size:
            return mask
        return mask.reshape(len(mask), self.tables, self.max_size)[:, :, :width].reshape(len(mask), -1)


Mask = PrefixMask | SparseMask


def row_sizes(mask: Mask) -> npt.NDArray[np.float64]:
    """Entries that each row keeps, a table: float64[n]; the sizes of a PrefixMask."""
    if isinstance(mask, PrefixMask):
        return mask.sizes.astype(np.float64)
    return np.diff(mask.indptr) / mask.tables


def sparsity(mask: Mask) -> Fraction:
    """Share of the table that is removed: the left side of Eq. 5, exact."""
    return 1 - Fraction(mask.kept, mask.total)


def exact(sparsity: float | str | Fraction) -> Fraction:
    """The sparsity that was written: 0.9 is 9/10, not the nearest binary fraction."""
    return sparsity if isinstance(sparsity, Fraction) else Fraction(str(sparsity))


def budget(n: int, max_size: int, sparsity: float | str | Fraction) -> int:
    """Entries that may be kept at this sparsity: floor((1 - c) n d_max) (Eq. 5).

    Raises BudgetError for a sparsity outside (0, 1), and where not even one column a row fits.
    """
    c = exact(sparsity)
    if not 0 < c < 1:
        raise BudgetError(
            f"The sparsity is {float(c):g}, but it must lie between 0 and 1: it is the share of the table that is "
            "removed, 0.9 for a tenth of the parameters. Choose such a share."
        )
    entries = int((1 - c) * n * max_size)
    if entries < n:
        largest = float(Fraction(10_000 * (max_size - 1) // max_size, 10_000))  # rounded down, so that it can be met
        raise BudgetError(
            f"A sparsity of {float(c):g} leaves {entries:,} parameters for {n:,} rows, but every row keeps at least "
            f"1 of its {max_size} dimensions. Choose a sparsity of at most {largest:g}."
        )
    return entries


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

    rule: `floor` keeps the budget; `round` takes the nearest size, which may break the budget; `filled` is floor
    with one more dimension for the rows of highest degree until the budget is used up to the last parameter.
    degrees: int64[n], needed for `filled`.
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

    actions: float[n], wanted sizes, positive. Every size is floor(scale * action) within 1..max_size, with the
    largest scale that fits; what is left goes, one dimension each, to the rows next in line: by action, then
    degree (int64[n]), then row. So a larger action never gets a smaller size, and a larger budget never takes a
    dimension from any row.
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
