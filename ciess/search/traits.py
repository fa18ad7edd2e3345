"""What an agent may know of a row beside Eq. 6: how far its energy reaches, and who its neighbours are.

The paper leaves richer states to future work (section 5).
"""

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ciess.data import Interactions
from ciess.training.starts.projected import own_axes

Floats = npt.NDArray[np.float32]


def row_traits(data: Interactions, table: Tensor, quality: Floats, density: float) -> Floats:
    """Traits of every row.

    Args:
        data: interactions with n users and items.
        table: of the reference, float32[n, tables, max_size].
        quality: Eq. 8 and 9 of the reference, float32[n].
        density: share of the full table that a budget keeps.

    Returns:
        float32[n, 3] in [0, 1]: the share of a row's energy that lies beyond the budget's columns, on the principal
        axes of its side; the mean log degree of its neighbours; their mean quality. The latter two span [0, 1] on
        each side; 0 for a row without any energy, or without a neighbour.
    """
    n_users, train = data.n_users, data.train
    degrees = np.log1p(data.degrees().astype(np.float64))
    parts = []
    for side, rows in (("users", slice(0, n_users)), ("items", slice(n_users, data.n))):
        of, by = (train.users, train.items) if side == "users" else (train.items, train.users)
        others = slice(n_users, data.n) if side == "users" else slice(0, n_users)
        count = rows.stop - rows.start
        columns = [_energy_beyond(table[rows], _budgeted(table[rows], table, density))]
        columns += [_scaled(_neighbours(values[others], of, by, count)) for values in (degrees, quality)]
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts).astype(np.float32)


def _budgeted(own: Tensor, table: Tensor, density: float) -> int:
    """Columns that a budget has for each row of a side, were the whole of it shared by the rows that are not empty."""
    filled = int(table.any(2).any(1).sum())
    return int(np.clip(round(density * len(table) * table.shape[2] / max(1, filled)), 1, own.shape[2]))


def _energy_beyond(rows: Tensor, columns: int) -> npt.NDArray[np.float64]:
    """Share of each row's squares beyond the first columns, on the axes that hold most of all rows: float64[m]."""
    shares = np.zeros((len(rows), rows.shape[1]))
    for place, table in enumerate(rows.unbind(1)):
        # Rows that a backbone does not have are many and 0.
        filled = table.any(1)
        squares = (table[filled].double() @ own_axes(table[filled])).square()
        shares[filled.numpy(), place] = (squares[:, columns:].sum(1) / squares.sum(1)).numpy()
    found: npt.NDArray[np.float64] = shares.mean(1)
    return found


def _neighbours(
    values: npt.NDArray[np.floating], of: npt.NDArray[np.int32], by: npt.NDArray[np.int32], count: int
) -> npt.NDArray[np.float64]:
    """Mean of the neighbours' values of each of `count` rows, float64[count], NaN without a neighbour."""
    known = np.bincount(of, minlength=count)
    sums = np.bincount(of, weights=np.asarray(values, np.float64)[by], minlength=count)
    return np.where(known > 0, sums / np.maximum(known, 1), np.nan)


def _scaled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Values spread over [0, 1], 0 for NaN and where all are equal."""
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    return np.nan_to_num((values - low) / (high - low if high > low else 1.0))
