import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import FitError, RunDirectoryError
from ciess.runs import search as search_run
from ciess.runs.directory import open_run
from ciess.runs.search import run_search
from ciess.runs.status import describe_status
from ciess.search.proposals import Outcome, Proposal
from ciess.search.short_fit import short_fit
from ciess.storage.checkpoint import last_values
from ciess.storage.storage import Storage
from ciess.training.loop import Training

HEAD = "planted, lightgcn: 120 users, 80 items"


@pytest.fixture
def config(small_search: Callable[..., SearchConfig]) -> SearchConfig:
    """Three choices of equal sizes, then six iterations."""
    return small_search(lanes=1, iterations=3)


@pytest.fixture
def search_until(
    planted: Planted, config: SearchConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], None]:
    """search_until(at): a search that breaks down at that fit; each fit says that it took 30 and 90 seconds."""

    def search(at: int) -> None:
        calls = 0

        def slow(data: Interactions, config: SearchConfig, proposal: Proposal, *rest: Any) -> Outcome:
            nonlocal calls
            calls += 1
            if calls == at:
                raise FitError("The loss is nan.")
            outcome = short_fit(data, config, proposal, *rest)
            return Outcome(*outcome.slot, outcome.quality, 30.0, 90.0)

        monkeypatch.setattr(search_run, "short_fit", slow)
        with contextlib.suppress(FitError):
            run_search(planted.data, config, str(tmp_path))

    return search


def status(out: Path) -> list[str]:
    return describe_status(str(out)).replace(str(out), "OUT").splitlines()


def reference_line(out: Path) -> str:
    found = Storage(out).read_json("reference/metrics.json")
    return f"reference: finished, validation quality {found['metrics']['quality']:.4f} at epoch {found['epochs']}"


@pytest.mark.parametrize("content", [{}, {"notes.txt": "x"}, {"config.yaml": "theme: dark\n"}])
def test_a_folder_without_a_run(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RunDirectoryError) as caught:
        status(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds no run: a config.yaml that ciess wrote was expected. Check the path, or start one with "
        "`ciess search DATA --out DIR`."
    )


def test_nothing_is_begun(planted: Planted, tmp_path: Path, config: SearchConfig) -> None:
    open_run(Storage(tmp_path), planted.data, config, DataConfig())
    assert status(tmp_path) == [
        HEAD,
        "reference: not begun",
        "search: 0 short fits done, no iteration of 6 finished",
        "tables: 0 finished",
    ]


def test_the_reference_is_in_training(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: SearchConfig
) -> None:
    train = Training.epoch

    def epoch_or_break(training: Training, epoch: int) -> float:
        if epoch == 4:
            raise FitError("The loss is nan.")
        return train(training, epoch)

    monkeypatch.setattr(Training, "epoch", epoch_or_break)
    with pytest.raises(FitError):
        run_search(planted.data, config, str(tmp_path))
    state = last_values(Storage(tmp_path).child("reference", "progress"))
    assert state is not None
    assert 0 < state["best_quality"] < 1
    assert status(tmp_path)[1] == f"reference: in training, epoch 2, best {state['best_quality']:.4f}"


def test_equal_sizes_are_being_fitted(tmp_path: Path, search_until: Callable[[int], None]) -> None:
    search_until(3)
    assert status(tmp_path) == [
        HEAD,
        reference_line(tmp_path),
        "search: 2 short fits done, no iteration of 6 finished",
        "tables: 0 finished",
    ]


def test_half_way(tmp_path: Path, search_until: Callable[[int], None]) -> None:
    search_until(8)
    last = Storage(tmp_path).read_table("history.parquet").to_pylist()[-1]
    assert (last["episode"], last["iteration"]) == (2, 1)
    lines = status(tmp_path)
    assert lines[:-2] == [
        HEAD,
        reference_line(tmp_path),
        "search: 4 of 6 iterations done",
        f"last: episode 2, iteration 1, mean sizes users {last['users_size']:.1f} items {last['items_size']:.1f}, "
        f"sparsity {100 * last['sparsity']:.1f} %, quality {last['quality']:.4f}",
    ]
    # Two iterations are left, at two minutes each and what agents and checkpoints took.
    assert lines[-2].startswith("left: 4 min at 12")
    assert lines[-2].endswith(" s an iteration, as in the last ones")
    assert lines[-1] == "tables: 0 finished"


def test_finished_with_tables(tmp_path: Path, search_until: Callable[[int], None]) -> None:
    search_until(0)
    for name, file in [("ciess-c80-s0", "card.json"), ("full-s0", "card.json"), ("equal-c80-s0", "ids.parquet")]:
        (tmp_path / "tables" / name).mkdir(parents=True)
        (tmp_path / "tables" / name / file).write_text("{}")
    lines = status(tmp_path)
    assert lines[2] == "search: 6 of 6 iterations done"
    assert not [line for line in lines if line.startswith("left")]
    # A table without a card was cut short.
    assert lines[-1] == "tables: 2 finished (ciess-c80-s0, full-s0)"


def test_a_run_of_fixed_sizes(planted: Planted, tmp_path: Path) -> None:
    open_run(Storage(tmp_path), planted.data, FitConfig(), DataConfig())
    assert status(tmp_path) == [HEAD, "tables: 0 finished"]


def test_a_run_that_was_killed_as_it_was_made(planted: Planted, tmp_path: Path, config: SearchConfig) -> None:
    open_run(Storage(tmp_path), planted.data, config, DataConfig())
    (tmp_path / "data.json").unlink()
    assert status(tmp_path)[0] == "lightgcn: not begun"


def test_masks_of_learned_methods(planted: Planted, tmp_path: Path) -> None:
    config = FitConfig(method=("pep", "esapn"), sparsity=(0.5,), device="cpu", threads=1)
    run = Storage(tmp_path)
    open_run(run, planted.data, config, DataConfig())
    run.write_json("learned/esapn-s0/checkpoint/state.json", {})
    run.write_json("learned/pep-s0/outcome.json", {})
    assert describe_status(str(tmp_path)).splitlines()[1:] == [
        "esapn-s0: finding masks, not finished",
        "pep-s0: masks found",
        "tables: 0 finished",
    ]


def test_a_sweep_is_no_run(planted: Planted, tmp_path: Path) -> None:
    run = Storage(tmp_path)
    run.write_yaml("config.yaml", {"config": {"backbones": ["lightgcn"]}, "data": {}, "made_with": {}})
    with pytest.raises(RunDirectoryError) as caught:
        describe_status(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} holds a sweep, but a run of one search or fit was expected. Give a folder below its searches/; "
        "how far the sweep is stands in its own log."
    )
