"""What an epoch found, and the table of all of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from ciess.storage.columns import EPOCHS
from ciess.storage.storage import Storage, read_columns


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean loss, None for epoch 0, the start, and the validation mean of Eq. 8 where it was evaluated."""

    epoch: int
    loss: float | None
    quality: float | None


def history_table(history: Sequence[EpochRecord]) -> pa.Table:
    """Rows of history.parquet of a training."""
    return pa.Table.from_pylist([asdict(record) for record in history], schema=EPOCHS)


def read_history(folder: Storage, advice: str) -> tuple[EpochRecord, ...]:
    """The epochs in a folder's history.parquet.

    Args:
        folder: where it is.
        advice: what to do about a file that cannot be used.

    Returns:
        every epoch, in order.

    Raises:
        RunDirectoryError: it is missing, or cannot be read.
    """
    return tuple(EpochRecord(**row) for row in read_columns(folder, "history.parquet", EPOCHS, advice).to_pylist())
