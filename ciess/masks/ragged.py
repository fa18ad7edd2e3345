"""The kept values of a table in one row after the other, and back to a table.

Values go row by row, in a row table by table (NCF: GMF, then tower), in a table by column: the order of the entries
of Eq. 1's E o M that M keeps.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from ciess.masks.mask import Mask, PrefixMask, SparseMask

Floats = npt.NDArray[np.float32]


def rows_of(mask: Mask) -> int:
    """Rows that a mask speaks of."""
    return len(mask.sizes) if isinstance(mask, PrefixMask) else len(mask.indptr) - 1


def kept_entries(mask: Mask, tables: int, width: int) -> npt.NDArray[np.bool_]:
    """The mask over all tables of a backbone, bool[n, tables * width]: one of fewer tables holds for each of them."""
    own = mask.tables if isinstance(mask, SparseMask) else 1
    kept = mask.dense().reshape(rows_of(mask), own, mask.max_size)[:, :, :width]
    return np.tile(kept.reshape(len(kept), own * width), (1, tables // own))


def to_dense(values: Floats, mask: Mask, tables: int, width: int) -> Floats:
    """float32[n, tables * width] with values, float32[kept], where the mask keeps an entry, and zero elsewhere."""
    kept = kept_entries(mask, tables, width)
    table = np.zeros(kept.shape, dtype=np.float32)
    table[kept] = values
    return table


def to_csr(values: Floats, mask: Mask, tables: int) -> csr_matrix:
    """Sparse float32[n, tables * max_size]; a kept value that is zero is an entry, too."""
    kept = kept_entries(mask, tables, mask.max_size)
    indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return csr_matrix((values.copy(), np.nonzero(kept)[1], indptr), shape=kept.shape)


def kind(mask: Mask) -> dict[str, Any]:
    """What `unpack` must know beside the arrays, as JSON."""
    return {"kind": "prefix"} if isinstance(mask, PrefixMask) else {"kind": "sparse", "tables": mask.tables}


def pattern(mask: Mask) -> dict[str, npt.NDArray[Any]]:
    """The arrays that say where values stand, in their smallest types.

    PrefixMask: sizes int16[n]. SparseMask: columns uint8[kept], or int16 above 256 columns; indptr int32[n + 1], or
    int64 for 2^31 entries and more.
    """
    if isinstance(mask, PrefixMask):
        return {"sizes": mask.sizes}
    columns = np.uint8 if mask.tables * mask.max_size <= 256 else np.int16
    pointers = np.int32 if mask.kept <= np.iinfo(np.int32).max else np.int64
    return {"columns": mask.columns.astype(columns), "indptr": mask.indptr.astype(pointers)}


def unpack(kind: Mapping[str, Any], pattern: Mapping[str, npt.NDArray[Any]], max_size: int) -> Mask:
    """The mask whose `kind` and `pattern` these are."""
    if kind["kind"] == "prefix":
        return PrefixMask(pattern["sizes"], max_size)
    indptr, columns = pattern["indptr"].astype(np.int64), pattern["columns"].astype(np.int16)
    return SparseMask(indptr, columns, max_size, kind["tables"])
