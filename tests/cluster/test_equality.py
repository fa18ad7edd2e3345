"""A search gives the same bits in this process, with one worker and with two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.runs.search import run_search
from ciess.storage.storage import Storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


class TestEqualBits:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_workers_find_what_one_process_finds(
        self,
        searching: Callable[..., Any],
        folder: Callable[..., Storage],
        config: Callable[..., SearchConfig],
        undisturbed: Storage,
        assert_same: Callable[..., None],
        workers: int,
    ) -> None:
        run = folder(config())
        searching(config(), run, workers).end()
        assert_same(run, undisturbed, config())

    @pytest.mark.parametrize("strategy", ["kinds", "random", "td3"])
    def test_every_strategy_at_a_budget_finds_the_same_on_workers(
        self,
        searching: Callable[..., Any],
        folder: Callable[..., Storage],
        data: Interactions,
        tmp_path: Path,
        strategy: str,
    ) -> None:
        more = {"iterations": 2, "agent": {"hidden": 16}} if strategy == "td3" else {"kinds": {"population": 4}}
        config = SearchConfig(sparsity=(0.75,), strategy=strategy, fits=8, max_size=16, device="cpu", threads=1, **more)
        run_search(data, config, str(tmp_path / "here"))
        here = Storage(tmp_path / "here")
        run = folder(config)
        searching(config, run, 2).end()
        for file in ("candidates.parquet", "history.parquet"):
            tables = [place.read_table(file) for place in (run, here)]
            values = [table.drop_columns([n for n in table.column_names if n.endswith("_seconds")]) for table in tables]
            assert values[0].num_rows and values[0].equals(values[1]), f"{file} differs"
