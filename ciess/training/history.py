"""What an epoch found, and the table of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean loss of Eq. 4, and the validation mean of Eq. 8 where it was evaluated."""

    epoch: int
    loss: float
    quality: float | None


def history_table(history: Sequence[EpochRecord]) -> pa.Table:
    """Rows of history.parquet of a training."""
    return pa.table(
        {
            "epoch": pa.array([record.epoch for record in history], pa.int64()),
            "loss": pa.array([record.loss for record in history], pa.float64()),
            "quality": pa.array([record.quality for record in history], pa.float64()),
        }
    )
