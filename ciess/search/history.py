"""Columns of history.parquet: what each iteration of a search did, and what it cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ciess.storage.columns import side_columns


def side_values(
    side: str,
    stages: Sequence[npt.NDArray[Any]],
    ratios: npt.NDArray[np.float32],
    rewards: npt.NDArray[np.float32],
    loss: float | None,
) -> dict[str, float | None]:
    """The columns of one side with b entities.

    stages: sizes that the actor wants, after noise, after the walk, and as fitted, each [b]. ratios, rewards: Eq. 7
    and Eq. 10, float32[b]. loss: mean loss of the critics.
    """
    means = [mean(values) for values in (*stages, ratios, rewards)]
    return dict(zip(side_columns(side), [*means, float(stages[-1].std(dtype=np.float64)), loss], strict=True))


def mean(values: npt.NDArray[Any]) -> float:
    """Mean in float64, in which all means of a history are taken."""
    return float(values.mean(dtype=np.float64))
