"""Columns of results.parquet and per_user.parquet: enough to draw Tables 1-2 and Figures 4-5 of the paper."""

import pyarrow as pa

PROJECTED, EQUAL_WON, SIZED_WON = "projected", "equal sizes won", "sizes by popularity won"
"""Flags of a searched table: its mask kept no budget before it was projected; validation chose equal sizes, or those of
`sized`, instead."""

FORCED = "forced"
"""Flag of a learned table: training did not reach the budget, and the largest entries were kept instead."""

CHOSEN, SEARCHED = "chosen", "searched"
"""Roles of a search's tables: what validation chose; the best searched mask beside it where equal sizes were chosen."""

RESULTS = pa.schema(
    [
        ("search_id", pa.string()),  # null for a method without a search
        ("method", pa.string()),  # full | equal | mixed | ...
        ("candidate", pa.string()),  # name of the table: its folder below tables/
        ("backbone", pa.string()),
        ("dataset", pa.string()),
        ("budget_mode", pa.string()),
        ("memory_weight", pa.float64()),
        ("noise", pa.string()),
        ("random_walk", pa.bool_()),
        ("walk_weights", pa.string()),
        ("target_sparsity", pa.float64()),  # null where the method was given none
        ("sparsity", pa.float64()),  # of the mask
        ("kept_parameters", pa.int64()),
        ("split", pa.string()),  # valid | test
        ("metric", pa.string()),  # Recall | NDCG | quality (Eq. 8)
        ("k", pa.int64()),  # null for quality
        ("value", pa.float64()),
        ("seed", pa.int64()),
        ("split_seed", pa.int64()),  # null for input that came split
        ("epochs", pa.int64()),
        ("seconds", pa.float64()),
        ("flag", pa.string()),  # null, or what the reader must know, such as `forced`
        ("role", pa.string()),  # of a table of a search: CHOSEN | SEARCHED
        ("start", pa.string()),  # where training started: fresh | cut | projected | spectral | own; null before 0.2
        ("loss", pa.string()),  # what it minimised: bpr | softmax | squared; null before 0.2
    ]
)
"""A row a table, split, metric and cutoff.

Beside metrics: `Coverage` at k, share of items that anyone is recommended; `ItemRows`, share of items that have a row;
`Interval`, half the 95 % interval of the mean quality where a sample of users was ranked.
"""


LATER: dict[str, tuple[str, pa.DataType]] = {
    "start": ("sizes", pa.string()),
    "choice_quality": ("quality", pa.float64()),
}
"""Columns that ciess 0.1.0 did not write into tables that have the other one: null there."""


def completed_columns(table: pa.Table) -> pa.Table:
    """Rows of a file of a run with the columns that ciess 0.1.0 did not write; names of tables tell their roles.

    Args:
        table: rows of results.parquet, candidates.parquet, history.parquet of a search, or others, which stay.

    Returns:
        the rows with all of today's columns.
    """
    names = set(table.column_names)
    if {"candidate", "search_id"} <= names:
        return _with_roles(table)
    if {"quality_ratio", "quality"} <= names:
        for name, (beside, type_) in LATER.items():
            if name not in names and beside in names:
                table = table.append_column(name, pa.nulls(len(table), type_))
    return table


def _with_roles(results: pa.Table) -> pa.Table:
    for name in ("start", "loss"):
        if name not in results.column_names:
            results = results.append_column(name, pa.nulls(len(results), pa.string()))
    if "role" in results.column_names:
        return results
    names, searches = results["candidate"].to_pylist(), results["search_id"].to_pylist()
    roles = [
        None if search is None else SEARCHED if f"-{SEARCHED}-" in name else CHOSEN
        for name, search in zip(names, searches, strict=True)
    ]
    return results.append_column("role", pa.array(roles, pa.string()))


PER_USER = pa.schema(
    [
        ("candidate", pa.string()),
        ("method", pa.string()),
        ("target_sparsity", pa.float64()),
        ("seed", pa.int64()),
        ("user", pa.int64()),  # code, position in ids.parquet
        ("quality", pa.float32()),  # Eq. 8 on test
    ]
)
"""A row a table and user with a test item."""


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
        ("choice_quality", pa.float64()),  # mean of Eq. 8 on the half that is chosen by; null where there is none
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


CANDIDATES = pa.schema(
    [
        ("episode", pa.int64()),  # 0 for equal sizes
        ("iteration", pa.int64()),
        ("lane", pa.int64()),
        ("sparsity", pa.float64()),
        ("quality_ratio", pa.float64()),  # mean of Eq. 7 over users and items (Eq. 16), after the short fit
        ("users_quality_ratio", pa.float64()),  # over users alone
        ("quality", pa.float64()),  # mean of Eq. 8 over users with validation items, on the half that is searched by
        ("choice_quality", pa.float64()),  # the same on the half that is chosen by; null where validation is not cut
        ("origin", pa.string()),  # search | equal | sized
        ("start", pa.string()),  # of the short fit, as JSON; null for that of the settings
        ("sizes", pa.list_(pa.int16())),  # users first
    ]
)
"""A row a short fit, in the order in which rounds were completed."""


RETRAINED = pa.schema(
    [
        ("target_sparsity", pa.float64()),
        ("seed", pa.int64()),
        ("origin", pa.string()),  # search | projected | equal | sized
        ("where", pa.string()),  # which mask, for the reader
        ("sparsity", pa.float64()),
        ("short_quality_ratio", pa.float64()),  # of the short fit; null where there was none
        ("quality_ratio", pa.float64()),  # mean of Eq. 7 over users and items (Eq. 16), trained to convergence
        ("quality", pa.float64()),  # mean of Eq. 8 on validation
        ("choice_quality", pa.float64()),  # on the half that is chosen by; null where validation is not cut
        ("epochs", pa.int64()),
        ("selected", pa.bool_()),
        ("mask", pa.string()),  # sha256 of the sizes, shortened
    ]
)
"""A row a mask, budget and seed of retrained.parquet: what stood for choice, and what validation chose."""

EPOCHS = pa.schema([("epoch", pa.int64()), ("loss", pa.float64()), ("quality", pa.float64())])
"""A row an epoch of a training's history.parquet: mean loss, null for epoch 0, and validation quality where there is
one."""

ENTITY_QUALITY = pa.schema(
    [
        ("side", pa.string()),  # user | item
        ("code", pa.int64()),
        ("quality", pa.float32()),  # Eq. 8 of users and Eq. 9 of items, on validation
        ("counted", pa.bool_()),  # users with a validation item, items with a training user
    ]
)
"""A row an entity of a reference's quality.parquet, users first."""

USER_QUALITY = pa.schema([("quality", pa.float32())])
"""A row a user of a training's quality.parquet: Eq. 8 on validation."""
