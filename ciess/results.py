"""Columns of results.parquet and per_user.parquet: enough to draw Tables 1-2 and Figures 4-5 of the paper."""

import pyarrow as pa

PROJECTED, EQUAL_WON = "projected", "equal sizes won"
"""Flags of a searched table: its mask kept no budget before it was projected; validation chose equal sizes instead."""

FORCED = "forced"
"""Flag of a learned table: training did not reach the budget, and the largest entries were kept instead."""

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
    ]
)
"""A row a table, split, metric and cutoff."""

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
