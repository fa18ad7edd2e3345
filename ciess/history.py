"""Columns of history.parquet: what each iteration of a search did, and what it cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SIDES = ("users", "items")

_SIDE_COLUMNS = (
    "actor_size",  # mean size the actor wants
    "noisy_size",  # after noise
    "walk_size",  # after the walk and the critic's choice
    "size",  # fitted, after projection
    "quality_ratio",  # mean of Eq. 7
    "reward",  # mean of Eq. 10
    "size_sd",  # standard deviation of the fitted sizes over entities
    "critic_loss",  # mean over the updates of this iteration; null where nothing can be learned
)


def side_columns(side: str) -> tuple[str, ...]:
    """Names of the columns of one side, such as `users_actor_size`, in order."""
    return tuple(f"{side}_{column}" for column in _SIDE_COLUMNS)


HISTORY = pa.schema(
    [
        ("episode", pa.int64()),
        ("iteration", pa.int64()),
        ("lane", pa.int64()),
        ("target_sparsity", pa.float64()),  # null in penalty mode
        ("memory_weight", pa.float64()),  # lambda of Eq. 10 at this iteration's reward
        ("sparsity", pa.float64()),  # of the fitted sizes
        ("raw_sparsity", pa.float64()),  # of what the actors want, before noise
        ("quality", pa.float64()),  # mean of Eq. 8 over users with validation items
        ("quality_ratio", pa.float64()),  # mean of Eq. 7 over users and items
        *((column, pa.float64()) for side in SIDES for column in side_columns(side)),
        ("fit_seconds", pa.float64()),
        ("evaluation_seconds", pa.float64()),
        ("propose_seconds", pa.float64()),  # states, actor, noise, walk, projection
        ("walk_seconds", pa.float64()),  # of these, the walk and the critic's choice
        ("update_seconds", pa.float64()),  # TD3
        ("agent_seconds", pa.float64()),  # proposing, updates, and qualities, rewards, replay and bookkeeping
        ("checkpoint_seconds", pa.float64()),
    ]
)
"""A row an iteration and lane, in order of rounds."""


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
