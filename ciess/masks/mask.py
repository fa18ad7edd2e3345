"""Which entries of the embedding table exist, and how many of them a budget allows (Eq. 1, 2, 5).

A mask is one of two things: a `PrefixMask`, that keeps the first `sizes[n]` columns of row n (Eq. 2),
or a `SparseMask`, that keeps any set of entries. Sparsity is counted from the mask in exact arithmetic,
never from zeros in a trained table. Rows are users first, then items.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from ciess.errors import BudgetError

Sizes = npt.NDArray[np.int16]

RowSide = Literal["users", "items"]


@dataclass(frozen=True, eq=False)
class PrefixMask:
    """Keeps the first `sizes[n]` columns of row n (Eq. 2).

    A backbone with several tables an entity (NCF) applies the same size to each of them, so that the sparsity stays
    sum(sizes) / (n * max_size).

    Attributes:
        sizes: int16[n], each in 0..max_size.
        max_size: columns of the full table, d_max.

    Raises:
        BudgetError: sizes are no integers, one a row, or lie outside 0..max_size.
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

    Attributes:
        indptr: int64[n + 1].
        columns: int16[kept], ascending in each row, in 0..tables * max_size - 1.
        max_size: columns of the full table, d_max.
        tables: tables an entity of the backbone (2 for NCF: GMF columns first, then those of the tower).

    Raises:
        BudgetError: the pointers do not rise to the number of entries, or columns lie outside their range or do not
            ascend in a row.
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


def rows_from(mask: Mask, first: int) -> Mask:
    """The mask of the rows from `first` on."""
    if isinstance(mask, PrefixMask):
        return PrefixMask(mask.sizes[first:], mask.max_size)
    indptr = mask.indptr[first:]
    return SparseMask(indptr - indptr[0], mask.columns[indptr[0] :], mask.max_size, mask.tables)


def with_fewer_users(mask: Mask, n_users: int, count: int) -> PrefixMask:
    """The mask of a table of `count` users without rows, in the place of n_users without rows."""
    sizes = row_sizes(mask)[n_users:].astype(np.int16)
    return PrefixMask(np.concatenate([np.zeros(count, np.int16), sizes]), mask.max_size)


def stored_side(mask: Mask, n_users: int) -> RowSide | None:
    """The side that alone has rows, None where both have."""
    sizes = row_sizes(mask)
    if not sizes[:n_users].any():
        return "items"
    return None if sizes[n_users:].any() else "users"
