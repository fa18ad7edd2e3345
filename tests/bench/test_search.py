from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ciess.bench import search as search_bench
from ciess.bench.search import SearchBench, bench_search, describe_search_bench, short_fit_seconds
from ciess.config.search import SearchConfig
from ciess.data.planted import Planted
from ciess.errors import RunDirectoryError
from ciess.runs.search import run_search
from ciess.storage.storage import Storage


@pytest.fixture
def config(small_search: Callable[..., SearchConfig]) -> SearchConfig:
    return small_search(lanes=1, episodes=1, sparsities=(0.5,), short_fit={"epochs": 2, "start": "principal"})


def test_the_iterations_of_a_search_are_compared_with_their_estimates(
    planted: Planted, config: SearchConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = run_search(planted.data, config, str(tmp_path))
    monkeypatch.setattr(
        search_bench, "short_fit_seconds", lambda data, config, widths, rounds, start: np.array(widths) / 10
    )
    found = bench_search(planted.data, Storage(tmp_path), rounds=1)
    searched = [candidate for candidate in search.visited if candidate.origin == "search"]
    assert found.widths == tuple(int(candidate.mask.sizes.max()) for candidate in searched)
    assert found.estimated == tuple(width / 10 for width in found.widths)
    rows = search.history.to_pylist()
    assert found.taken == tuple(row["fit_seconds"] + row["evaluation_seconds"] for row in rows)
    assert found.agent == pytest.approx(sum(row["agent_seconds"] + row["checkpoint_seconds"] for row in rows))
    assert min(found.taken) > 0


def test_a_short_fit_is_its_steps_and_an_evaluation(
    planted: Planted, config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.model_copy(update={"short_fit": config.short_fit.model_copy(update={"start": "fresh"})})
    clock, columns = [0.0], [0]

    class Timed(search_bench.Training):
        def step(self, *batch):  # type: ignore[no-untyped-def]
            columns[0] = self.embedding().shape[1]
            clock[0] += columns[0]
            return

        def validate(self):  # type: ignore[no-untyped-def]
            clock[0] += 1000
            return

    monkeypatch.setattr(search_bench, "Training", Timed)
    monkeypatch.setattr(search_bench.time, "perf_counter", lambda: clock[0])
    steps = -(-len(planted.data.train) // 500)
    found = short_fit_seconds(planted.data, config, (16, 12, 8), 3, {})
    # A step takes as many seconds as it has columns: so does one of 12 columns, between those of 8 and 16.
    np.testing.assert_allclose(found, [2 * steps * width + 1000 for width in (16, 12, 8)])


def test_short_fits_that_start_from_the_reference_are_timed_as_such(
    planted: Planted, config: SearchConfig, tmp_path: Path
) -> None:
    assert config.short_fit.start == "principal"
    run_search(planted.data, config, str(tmp_path))
    assert min(bench_search(planted.data, Storage(tmp_path), rounds=1).estimated) > 0


def test_it_is_said_in_ratios() -> None:
    text = describe_search_bench(SearchBench((4, 8), (1.0, 3.0), (2.0, 3.0), 0.5))
    assert text == (
        "2 short fits at widths 4 to 8: estimated 4 s at these widths, taken 5 s (1.25 x); agents and checkpoints 0 s, "
        "9.1% of all; 300 such iterations: 14 min"
    )


def test_a_folder_without_a_search_is_refused(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no search"):
        bench_search(planted.data, Storage(tmp_path))


def test_iterations_must_stand_in_both_files(planted: Planted, config: SearchConfig, tmp_path: Path) -> None:
    search = run_search(planted.data, config, str(tmp_path))
    Storage(tmp_path).write_table("history.parquet", search.history.slice(0, 0))
    with pytest.raises(RunDirectoryError) as caught:
        bench_search(planted.data, Storage(tmp_path), rounds=1)
    assert str(caught.value) == (
        f"{tmp_path} holds no iteration in both history.parquet and candidates.parquet; at least one was expected. Go "
        "on with `ciess search ... --resume` first."
    )
