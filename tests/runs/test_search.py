"""A search in this process and its run directory: what is in it, and what is said of it."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciess.config.data import DataConfig
from ciess.config.search import SearchConfig
from ciess.data.planted import Planted
from ciess.masks.budget import exact, sparsity
from ciess.runs.directory import resolved
from ciess.runs.search import describe_search, run_search
from ciess.search.search import Search
from ciess.storage.columns import CANDIDATES, HISTORY
from ciess.storage.storage import Storage

FITS = 7
"""Of `small_search()`: three choices of equal sizes, two episodes of two iterations."""

Small = Callable[..., SearchConfig]
Call = Callable[..., Any]


class TestRunDirectory:
    def test_what_is_in_it(self, planted: Planted, undisturbed: Callable[..., Path], small_search: Small) -> None:
        run = Storage(undisturbed())
        assert set(run.names()) == {
            *("config.yaml", "data.json", "reference", "checkpoint", "history.parquet", "candidates.parquet")
        }
        written = run.read_yaml("config.yaml")
        assert {part: written[part] for part in ("config", "data")} == resolved(small_search(), DataConfig())
        assert SearchConfig.model_validate(written["config"]) == small_search()
        assert set(written["made_with"]) == {"versions", "git_revision", "machine", "kernels"}
        about = run.read_json("data.json")
        assert (about["sha256"], about["users"], about["items"]) == (planted.data.sha256, 120, 80)
        assert run.child("checkpoint").names() == [f"{FITS - 1:06d}", f"{FITS:06d}"]

    def test_candidates(self, planted: Planted, undisturbed: Callable[..., Path]) -> None:
        table = Storage(undisturbed()).read_table("candidates.parquet")
        assert table.schema == CANDIDATES
        rows = table.to_pylist()
        assert [(row["origin"], row["episode"], row["iteration"], row["lane"]) for row in rows] == [
            *(("equal", 0, number, 0) for number in (1, 2, 3)),
            *(("search", 1, 1, 0), ("search", 2, 1, 1), ("search", 1, 2, 0), ("search", 2, 2, 1)),
        ]
        for row in rows:
            sizes = np.array(row["sizes"])
            assert len(sizes) == planted.data.n
            assert 1 <= sizes.min() <= sizes.max() <= 16
            assert row["sparsity"] == pytest.approx(1 - sizes.sum() / (16 * planted.data.n), rel=1e-12)
            assert 0 < row["quality"] < 1
            assert 0 < row["quality_ratio"] <= 1
        equal = [np.array(row["sizes"]) for row in rows[:3]]
        assert [(sizes.min(), sizes.max()) for sizes in equal] == [(8, 8), (3, 3), (3, 4)]
        assert all(len(set(row["sizes"])) > 2 for row in rows[3:])

    def test_history(self, undisturbed: Callable[..., Path]) -> None:
        run = Storage(undisturbed())
        history = run.read_table("history.parquet")
        assert history.schema == HISTORY
        rows = history.to_pylist()
        searched = [row for row in run.read_table("candidates.parquet").to_pylist() if row["origin"] == "search"]
        for name in ("episode", "iteration", "lane", "sparsity", "quality", "quality_ratio"):
            assert [row[name] for row in rows] == [row[name] for row in searched]
        for name in [name for name in HISTORY.names if name.endswith("_seconds")]:
            assert all(row[name] > 0 for row in rows), name

    def test_all_checkpoints_of_a_round_are_timed(
        self, planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_search: Small
    ) -> None:
        clock = itertools.count()
        monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
        search = run_search(planted.data, small_search(include_equal=False), str(tmp_path / "run"))
        rounds: dict[int, float] = {}
        for row in search.history.to_pylist():
            rounds[row["iteration"]] = rounds.get(row["iteration"], 0.0) + row["checkpoint_seconds"]
        # Every look at the clock is a second, and each of the two lanes writes a checkpoint.
        assert rounds == {1: 2.0, 2: 2.0}
        assert Storage(tmp_path / "run").read_table("history.parquet").equals(search.history)

    def test_it_returns_the_finished_search(self, planted: Planted, tmp_path: Path, small_search: Small) -> None:
        search = run_search(planted.data, small_search(), str(tmp_path / "run"))
        assert isinstance(search, Search)
        assert search.done
        assert search.fits_done == search.fits == FITS
        assert search.run is not None
        assert search.run.root == str(tmp_path / "run")
        for candidate in search.candidates(0.1, 9):
            assert sparsity(candidate.mask) >= exact(0.1)

    def test_without_equal_sizes(self, planted: Planted, tmp_path: Path, small_search: Small) -> None:
        search = run_search(planted.data, small_search(include_equal=False), str(tmp_path / "run"))
        assert search.fits_done == 4
        rows = Storage(tmp_path / "run").read_table("candidates.parquet").to_pylist()
        assert {row["origin"] for row in rows} == {"search"}
        assert "Equal sizes" not in describe_search(search)

    def test_figures(self, planted: Planted, tmp_path: Path, pictures: None, small_search: Small) -> None:
        search = run_search(planted.data, small_search(), str(tmp_path / "run"))
        names = Storage(tmp_path / "run" / "figures").names()
        assert {"search.png", "iterations.png", "visited.png"} <= set(names)
        for name in names:
            assert (tmp_path / "run" / "figures" / name).read_bytes().startswith(b"\x89PNG")
        text = describe_search(search)
        assert text.startswith(f"{FITS} masks visited.")
        assert f"\nfigures are in {tmp_path}/run/figures\n" in text

    def test_the_next_step_is_for_the_budgets_that_are_met(
        self, planted: Planted, tmp_path: Path, small_search: Small
    ) -> None:
        search = run_search(planted.data, small_search(sparsities=(0.05, 0.9)), str(tmp_path / "run"))
        assert search.candidates(0.05)
        assert not search.candidates(0.9)
        met, missed = describe_search(search).splitlines()[-2:]
        assert met == f"retrain the best masks with: ciess retrain {tmp_path}/run --sparsity 0.05"
        assert missed == (
            "for 0.9: go on with more --episodes and --resume, search with a larger --memory-weight or with "
            "--budget-mode target --targets 0.9, or retrain with --project"
        )

    def test_the_summary_names_the_best_masks_or_how_far_the_search_got(
        self, planted: Planted, tmp_path: Path, small_search: Small
    ) -> None:
        search = run_search(planted.data, small_search(sparsities=(0.05, 0.9)), str(tmp_path / "run"))
        lines = describe_search(search).splitlines()
        best = search.candidates(0.05)
        assert best
        for candidate in best:
            assert (
                f"5 %: {candidate.where}, sparsity {100 * candidate.sparsity:.2f} %, ratio "
                f"{candidate.quality_ratio:.4f}, quality {candidate.quality:.4f}"
            ) in lines
        reached = max(search.history["sparsity"].to_pylist())
        assert reached < 0.9
        assert f"90 %: none; the sparsest mask visited has {100 * reached:.1f} %" in lines
        equal = [candidate for candidate in search.visited if candidate.origin == "equal"]
        heading = lines.index("Equal sizes, for comparison:")
        assert [line.split(", sparsity")[0] for line in lines[heading + 1 :][: len(equal)]] == [
            candidate.where for candidate in equal
        ]

    def test_the_log_says_how_good_the_reference_is(
        self, planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str], small_search: Small
    ) -> None:
        run_search(planted.data, small_search(), str(tmp_path / "run"))
        lines = capsys.readouterr().err.splitlines()
        quality = Storage(tmp_path / "run").read_json("reference/metrics.json")["metrics"]["quality"]
        assert lines[0].startswith("reference: lightgcn at 16 dimensions")
        assert lines[1].startswith("  epoch 0 start valid ")
        assert lines[2].startswith(f"reference: validation quality {quality:.4f}; it scores 0 for ")
