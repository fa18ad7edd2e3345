"""The whole of it on data whose answer is known: who is needy gets more dimensions, and the table is better for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.data.planted import planted
from ciess.runs.retrain import retrain_run
from ciess.runs.search import run_search
from ciess.storage.columns import EQUAL_WON
from ciess.storage.storage import Storage

TARGET = 0.75


@pytest.fixture
def config(small_search: Callable[..., SearchConfig]) -> SearchConfig:
    return small_search(
        lanes=1,
        training={
            "decay": 5e-4,
            "batch_size": 1000,
            "learning_rate_decay": 0.98,
            "max_epochs": 60,
            "evaluate_every": 5,
        },
        short_fit={"preset": "paper", "epochs": 20},
        budget_mode="target",
        targets=(TARGET,),
        episodes=6,
        iterations=10,
        memory_weight=0.1,
        memory_weight_rate=0.05,
        gaussian_sd=5.0,
        walk_reach=2,
        agent={
            "gamma": 0.0,
            "gradient_steps": 20,
            "batch_size": 512,
            "hidden": 64,
            "actor_learning_rate": 2e-4,
        },
    )


def test_needy_rows_get_more_dimensions_and_the_table_beats_equal_sizes(config: SearchConfig, tmp_path: Path) -> None:
    made = planted(0, needy_share=0.4)
    search = run_search(made.data, config, str(tmp_path))
    late = np.mean([mask.mask.sizes for mask in search.visited if mask.episode > 2], axis=0)
    assert late[made.needy].mean() > 1.08 * late[~made.needy].mean()
    text = retrain_run(str(tmp_path), RetrainConfig(sparsity=(TARGET,), compare=("equal",)), made.data)
    assert EQUAL_WON not in text
    rows = Storage(tmp_path).read_table("results.parquet").to_pylist()
    quality = {row["method"]: row["value"] for row in rows if row["split"] == "test" and row["metric"] == "quality"}
    sparsity = {row["method"]: row["sparsity"] for row in rows}
    assert sparsity["ciess"] == sparsity["equal"] == TARGET
    assert quality["ciess"] > 1.02 * quality["equal"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_forty_fits_of_the_default_search_give_needy_items_more(seed: int, tmp_path: Path) -> None:
    """Degrees do not tell who is needy: traits of rows have to."""
    made = planted(seed)
    search = run_search(made.data, SearchConfig(sparsity=(TARGET,), fits=40, max_size=16, threads=1), str(tmp_path))
    best = [c for c in search.best(TARGET) if c.origin == "search"]
    sizes = np.mean([c.mask.sizes[made.data.n_users :] for c in best], axis=0)
    needy = made.needy[made.data.n_users :]
    assert sizes[needy].mean() > 1.08 * sizes[~needy].mean()
