"""Columns of history.parquet: what each iteration of a search did, and what it cost."""

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
    "critic_loss",  # mean over the updates of this iteration
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
        ("update_seconds", pa.float64()),  # TD3
        ("agent_seconds", pa.float64()),  # the two before, and qualities, rewards, replay and bookkeeping
        ("checkpoint_seconds", pa.float64()),
    ]
)
"""A row an iteration and lane, in order of rounds."""
