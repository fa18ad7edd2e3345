"""A search in this process and its run directory: what is in it, how it goes on, what is refused."""

import contextlib
import copy
import dataclasses
import errno
import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ciess.config.data import DataConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions, Pairs
from ciess.data.planted import Planted
from ciess.data.planted import planted as make_planted
from ciess.errors import BudgetError, CiessError, DataError, FitError, InputError, RunDirectoryError
from ciess.masks.budget import exact, sparsity
from ciess.runs import search as search_run
from ciess.runs.directory import resolved
from ciess.runs.figures import write_search_figures
from ciess.runs.search import describe_search, run_search
from ciess.search import reference as reference_module
from ciess.search.proposals import Outcome, Proposal
from ciess.search.recorder import search_fingerprint
from ciess.search.reference import train_reference
from ciess.search.search import Search
from ciess.search.short_fit import short_fit
from ciess.storage.checkpoint import load_checkpoint
from ciess.storage.columns import CANDIDATES, HISTORY
from ciess.storage.storage import Storage
from ciess.training.fit import FitResult, fit
from ciess.training.loop import FitRequest

FITS = 7
"""Of `small_search()`: three choices of equal sizes, two episodes of two iterations."""


Small = Callable[..., SearchConfig]


TARGETS: dict[str, Any] = {
    "lanes": 1,
    "budget_mode": "target",
    "targets": (0.5, 0.8),
    "noise": "ou",
    "short_fit": {"epochs": 1, "shared_seed": False, "start": "reference"},
}


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Pictures take longer than these searches, so only the tests that look at them draw any."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(search_run, "search_figures", lambda *_: {})


@pytest.fixture
def pictures() -> None:
    """Asks for pictures."""


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of the references that are trained."""
    seeds: list[int] = []

    def spy(data: Interactions, request: FitRequest) -> FitResult:
        seeds.append(request.seed)
        return fit(data, request)

    monkeypatch.setattr(reference_module, "fit", spy)
    return seeds


class Stopped(Exception):
    """What a test raises in the middle of a search."""


Stop = Callable[..., None]


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """stop_at(k, error): the k-th short fit from now on raises the error; stop_at(None): none does."""

    def stop(at: int | None, error: Exception | None = None) -> None:
        calls = 0

        def short_fit_or_stop(data: Interactions, settings: SearchConfig, proposal: Proposal, *rest: Any) -> Outcome:
            nonlocal calls
            calls += 1
            if calls == at:
                raise error or Stopped
            return short_fit(data, settings, proposal, *rest)

        monkeypatch.setattr(search_run, "short_fit", short_fit_or_stop)

    return stop


@pytest.fixture(scope="module")
def undisturbed(planted: Planted, tmp_path_factory: pytest.TempPathFactory, small_search: Small) -> Callable[..., Path]:
    """undisturbed(**changes): run directory of small_search(**changes), which nobody interrupted; do not write."""
    found: dict[str, Path] = {}

    def run(**changes: Any) -> Path:
        key = json.dumps(changes, sort_keys=True)
        if key not in found:
            found[key] = tmp_path_factory.mktemp("undisturbed") / "run"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(search_run, "search_figures", lambda *_: {})
                run_search(planted.data, small_search(**changes), str(found[key]))
        return found[key]

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def untimed(table: pa.Table) -> pa.Table:
    return table.drop_columns([name for name in table.column_names if name.endswith("_seconds")])


def last_state(out: Path, data: Interactions, settings: SearchConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays by their bits, and values without seconds, of the last checkpoint."""
    state, notes = load_checkpoint(Storage(out / "checkpoint"), search_fingerprint(data, settings))
    assert state is not None
    assert notes == []
    values = copy.deepcopy(state["values"])
    for row in values["rows"]:
        for name in [name for name in row if name.endswith("_seconds")]:
            del row[name]
    values["told"] = [told[:3] for told in values["told"]]
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in state["arrays"].items()}, values


def assert_same_run(first: Path, second: Path, data: Interactions, settings: SearchConfig) -> None:
    """All that two equal searches have in common."""
    runs = [Storage(first), Storage(second)]
    candidates = [run.read_table("candidates.parquet") for run in runs]
    assert len(candidates[0])
    assert candidates[0].equals(candidates[1])
    histories = [untimed(run.read_table("history.parquet")) for run in runs]
    assert len(histories[0])
    assert histories[0].equals(histories[1])
    assert last_state(first, data, settings) == last_state(second, data, settings)
    for name in ("quality.parquet", "weights.safetensors"):
        assert runs[0].read_bytes(f"reference/{name}") == runs[1].read_bytes(f"reference/{name}")
    assert [run.child("checkpoint").names() for run in runs] == [runs[0].child("checkpoint").names()] * 2


def refusal(error: type[CiessError], data: Interactions, out: Path, settings: SearchConfig, **options: Any) -> str:
    with pytest.raises(error) as caught:
        run_search(data, settings, str(out), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(out), "OUT")


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
        assert lines[1].startswith(f"reference: validation quality {quality:.4f}; it scores 0 for ")


class TestGoingOn:
    @pytest.mark.parametrize("changes", [{}, TARGETS], ids=["lanes", "targets"])
    @pytest.mark.parametrize("at", range(1, FITS + 1))
    def test_a_search_that_stopped_anywhere_ends_as_an_undisturbed_one(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        stop_at: Stop,
        references: list[int],
        capsys: pytest.CaptureFixture[str],
        changes: dict[str, Any],
        at: int,
        small_search: Small,
    ) -> None:
        whole, settings = undisturbed(**changes), small_search(**changes)
        references.clear()
        stop_at(at)
        with pytest.raises(Stopped):
            run_search(planted.data, settings, str(tmp_path / "run"))
        # What was found so far can be read, whatever the round is at.
        run = Storage(tmp_path / "run")
        assert len(run.read_table("candidates.parquet")) <= at - 1
        assert run.read_table("history.parquet").schema == HISTORY
        stop_at(None)
        capsys.readouterr()
        search = run_search(planted.data, settings, str(tmp_path / "run"), resume=True)
        assert search.done
        said = f"Going on after {at - 1} of {FITS} short fits." in capsys.readouterr().err.splitlines()
        assert said == (at > 1)
        assert_same_run(whole, tmp_path / "run", planted.data, settings)
        assert references == [0]

    def test_as_often_as_one_likes(
        self, planted: Planted, tmp_path: Path, undisturbed: Callable[..., Path], stop_at: Stop, small_search: Small
    ) -> None:
        for fits in range(FITS):
            stop_at(2)
            with pytest.raises(Stopped) if fits < FITS - 1 else contextlib.nullcontext():
                run_search(planted.data, small_search(), str(tmp_path / "run"), resume=fits > 0)
        assert_same_run(undisturbed(), tmp_path / "run", planted.data, small_search())

    def test_a_finished_search_is_left_as_it_is(
        self, planted: Planted, tmp_path: Path, stop_at: Stop, references: list[int], small_search: Small
    ) -> None:
        first = run_search(planted.data, small_search(), str(tmp_path / "run"))
        before = contents(tmp_path / "run")
        stop_at(1)
        again = run_search(planted.data, small_search(), str(tmp_path / "run"), resume=True)
        assert untimed(again.history).equals(untimed(first.history))
        after = contents(tmp_path / "run")
        same = [name for name in before if name not in ("config.yaml", "history.parquet")]
        assert {name: after[name] for name in same} == {name: before[name] for name in same}
        assert references == [0]

    @pytest.mark.parametrize("changes", [{}, TARGETS], ids=["lanes", "targets"])
    @pytest.mark.parametrize("at", [None, 5], ids=["finished", "stopped"])
    def test_more_episodes(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        stop_at: Stop,
        changes: dict[str, Any],
        at: int | None,
        small_search: Small,
    ) -> None:
        longer = changes | {"episodes": 4}
        stop_at(at)
        try:
            run_search(planted.data, small_search(**changes), str(tmp_path / "run"))
        except Stopped:
            stop_at(None)
        run_search(planted.data, small_search(**longer), str(tmp_path / "run"), resume=True)
        assert_same_run(undisturbed(**longer), tmp_path / "run", planted.data, small_search(**longer))
        assert Storage(tmp_path / "run").read_yaml("config.yaml")["config"]["episodes"] == 4

    def test_fewer_episodes_than_were_reached(self, planted: Planted, tmp_path: Path, small_search: Small) -> None:
        run_search(planted.data, small_search(lanes=1), str(tmp_path / "run"))
        before = contents(tmp_path / "run")
        assert refusal(
            RunDirectoryError, planted.data, tmp_path / "run", small_search(lanes=1, episodes=1), resume=True
        ) == (
            "OUT holds a search that has reached episode 2, but --episodes is 1. As many or more were expected, as a "
            "search is only ever made longer. Raise --episodes, or choose another --out."
        )
        assert contents(tmp_path / "run") == before

    def test_fewer_episodes_than_are_begun(
        self, planted: Planted, tmp_path: Path, stop_at: Stop, small_search: Small
    ) -> None:
        """Of the third and fourth episode a single outcome is told: no row of the history speaks of them."""
        stop_at(FITS + 2)
        with pytest.raises(Stopped):
            run_search(planted.data, small_search(episodes=4), str(tmp_path / "run"))
        stop_at(None)
        before = contents(tmp_path / "run")
        text = refusal(RunDirectoryError, planted.data, tmp_path / "run", small_search(episodes=2), resume=True)
        assert text.startswith("OUT holds a search that has reached episode 3, but --episodes is 2.")
        assert contents(tmp_path / "run") == before

    def test_fewer_episodes_that_are_still_to_come(
        self, planted: Planted, tmp_path: Path, undisturbed: Callable[..., Path], stop_at: Stop, small_search: Small
    ) -> None:
        stop_at(FITS)
        with pytest.raises(Stopped):
            run_search(planted.data, small_search(episodes=4), str(tmp_path / "run"))
        stop_at(None)
        run_search(planted.data, small_search(), str(tmp_path / "run"), resume=True)
        assert_same_run(undisturbed(), tmp_path / "run", planted.data, small_search())

    def test_a_fit_that_breaks_down(
        self, planted: Planted, tmp_path: Path, undisturbed: Callable[..., Path], stop_at: Stop, small_search: Small
    ) -> None:
        stop_at(5, FitError("The loss is nan."))
        assert refusal(FitError, planted.data, tmp_path / "run", small_search()) == "The loss is nan."
        assert len(Storage(tmp_path / "run").read_table("candidates.parquet")) == 3
        stop_at(None)
        run_search(planted.data, small_search(), str(tmp_path / "run"), resume=True)
        assert_same_run(undisturbed(), tmp_path / "run", planted.data, small_search())

    def test_a_checkpoint_that_was_damaged(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        stop_at: Stop,
        capsys: pytest.CaptureFixture[str],
        small_search: Small,
    ) -> None:
        stop_at(6)
        with pytest.raises(Stopped):
            run_search(planted.data, small_search(), str(tmp_path / "run"))
        stop_at(None)
        (tmp_path / "run" / "checkpoint" / "000005" / "manifest.json").unlink()
        run_search(planted.data, small_search(), str(tmp_path / "run"), resume=True)
        lines = capsys.readouterr().err.splitlines()
        places = [f"{tmp_path}/run/checkpoint/{number}" for number in ("000005", "000004")]
        assert (
            f"Checkpoint {places[0]} cannot be used: it has no manifest, so its writing was cut short. Going on from "
            f"{places[1]}."
        ) in lines
        assert "Going on after 4 of 7 short fits." in lines
        assert_same_run(undisturbed(), tmp_path / "run", planted.data, small_search())

    def test_parquet_files_follow_the_checkpoint(
        self, planted: Planted, tmp_path: Path, stop_at: Stop, monkeypatch: pytest.MonkeyPatch, small_search: Small
    ) -> None:
        """They may be late after a kill, so a resumed run writes them before it does anything else."""
        stop_at(6)
        with pytest.raises(Stopped):
            run_search(planted.data, small_search(), str(tmp_path / "run"))
        run = Storage(tmp_path / "run")
        expected = {name: run.read_bytes(name) for name in ("candidates.parquet", "history.parquet")}
        for name in expected:
            run.delete(name)
        found: dict[str, bytes] = {}

        def look(*_: Any) -> Outcome:
            found.update({name: run.read_bytes(name) for name in expected if run.exists(name)})
            raise Stopped

        monkeypatch.setattr(search_run, "short_fit", look)
        with pytest.raises(Stopped):
            run_search(planted.data, small_search(), str(tmp_path / "run"), resume=True)
        assert found.keys() == expected.keys()
        assert found["candidates.parquet"] == expected["candidates.parquet"]

    def test_a_full_disk(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
        small_search: Small,
    ) -> None:
        """From the fifth checkpoint on nothing can be written any more."""
        write, full = Storage.write_bytes, False

        def write_or_fail(storage: Storage, name: str, content: bytes) -> None:
            nonlocal full
            full = full or storage.root.endswith("checkpoint/000005")
            if full:
                error = OSError(errno.ENOSPC, "No space left on device")
                raise RunDirectoryError(f"Cannot write {name}: {error}.")
            write(storage, name, content)

        with monkeypatch.context() as patch:
            patch.setattr(Storage, "write_bytes", write_or_fail)
            assert "No space left on device" in refusal(
                RunDirectoryError, planted.data, tmp_path / "run", small_search()
            )
        run_search(planted.data, small_search(), str(tmp_path / "run"), resume=True)
        assert_same_run(undisturbed(), tmp_path / "run", planted.data, small_search())


class TestOpening:
    def test_an_existing_run_is_refused(
        self, planted: Planted, undisturbed: Callable[..., Path], references: list[int], small_search: Small
    ) -> None:
        out = undisturbed()
        references.clear()
        before = contents(out)
        assert refusal(RunDirectoryError, planted.data, out, small_search()) == (
            "OUT already holds a run. An empty or new folder was expected. Choose another --out, go on with that run "
            "by --resume, or delete it by --overwrite."
        )
        assert contents(out) == before
        assert references == []

    def test_overwrite_starts_anew(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        references: list[int],
        small_search: Small,
    ) -> None:
        undisturbed()
        references.clear()
        run_search(planted.data, small_search(seed=5), str(tmp_path / "run"))
        run_search(planted.data, small_search(), str(tmp_path / "run"), overwrite=True)
        assert references == [5, 0]
        assert_same_run(undisturbed(), tmp_path / "run", planted.data, small_search())

    def test_there_is_nothing_to_resume(self, planted: Planted, tmp_path: Path, small_search: Small) -> None:
        assert refusal(RunDirectoryError, planted.data, tmp_path / "run", small_search(), resume=True) == (
            "OUT holds no run to resume: there is no config.yaml of one. Check --out, or leave --resume out to start "
            "one."
        )
        assert not (tmp_path / "run").exists()

    def test_other_settings_are_named(
        self, planted: Planted, undisturbed: Callable[..., Path], small_search: Small
    ) -> None:
        before = contents(undisturbed())
        other = small_search(episodes=4, memory_weight=0.2, lanes=1)
        assert refusal(RunDirectoryError, planted.data, undisturbed(), other, resume=True) == (
            "OUT was made with other settings: config.lanes was 2, now 1; config.memory_weight was 0.4, now 0.2. The "
            "same ones were expected (only episodes may change). Give the old values, or choose another --out."
        )
        assert contents(undisturbed()) == before

    def test_other_data_is_told_by_its_checksum(
        self, planted: Planted, undisturbed: Callable[..., Path], small_search: Small
    ) -> None:
        before = contents(undisturbed())
        other = make_planted(5, n_users=120, n_items=80, interactions_per_user=24).data
        assert refusal(RunDirectoryError, other, undisturbed(), small_search(), resume=True) == (
            f"OUT was made from data with sha256 {planted.data.sha256[:12]}, but the data given now has "
            f"{other.sha256[:12]}. Give the same file and reading options, or choose another --out."
        )
        assert contents(undisturbed()) == before

    @pytest.mark.parametrize(
        ("changes", "error", "text"),
        [
            ({"sparsities": (0.5, 0.999)}, BudgetError, "Choose a sparsity of at most 0.9375."),
            ({**TARGETS, "targets": (0.999,)}, BudgetError, "Choose a sparsity of at most 0.9375."),
            ({"device": "tpu"}, InputError, "The device is 'tpu'"),
        ],
    )
    def test_what_cannot_be_met_is_said_before_anything_is_trained_or_written(
        self,
        planted: Planted,
        tmp_path: Path,
        references: list[int],
        changes: dict[str, Any],
        error: type[InputError],
        text: str,
        small_search: Small,
    ) -> None:
        assert text in refusal(error, planted.data, tmp_path / "run", small_search(**changes))
        assert not (tmp_path / "run").exists()
        assert references == []

    def test_data_without_validation_pairs(self, planted: Planted, tmp_path: Path, small_search: Small) -> None:
        data = dataclasses.replace(planted.data, valid=Pairs.none())
        assert refusal(DataError, data, tmp_path / "run", small_search()) == (
            "planted has 0 validation pairs, but one or more were expected. Give data with more interactions a user."
        )
        assert not (tmp_path / "run").exists()

    def test_what_is_refused_leaves_the_run_that_it_would_overwrite(
        self, planted: Planted, undisturbed: Callable[..., Path], tmp_path: Path, small_search: Small
    ) -> None:
        out = undisturbed()
        before = contents(out)
        refusal(BudgetError, planted.data, out, small_search(sparsities=(0.999,)), overwrite=True)
        refusal(
            RunDirectoryError,
            planted.data,
            out,
            small_search(),
            overwrite=True,
            reference_from=str(tmp_path / "nowhere"),
        )
        assert contents(out) == before


class TestReferenceFrom:
    @pytest.mark.parametrize("folder", ["", "reference"])
    def test_it_is_copied_and_nothing_is_trained(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        references: list[int],
        folder: str,
        small_search: Small,
    ) -> None:
        source = undisturbed()
        references.clear()
        run_search(planted.data, small_search(), str(tmp_path / "run"), reference_from=str(source / folder))
        assert references == []
        assert contents(tmp_path / "run" / "reference") == contents(source / "reference")
        assert_same_run(source, tmp_path / "run", planted.data, small_search())

    def test_a_bare_reference_will_do(
        self, planted: Planted, tmp_path: Path, references: list[int], small_search: Small
    ) -> None:
        train_reference(planted.data, small_search().recommender(), 0, Storage(tmp_path / "shared"))
        references.clear()
        for weight in (0.1, 0.2):
            out = str(tmp_path / str(weight))
            run_search(planted.data, small_search(memory_weight=weight), out, reference_from=str(tmp_path / "shared"))
        assert references == []

    @pytest.mark.parametrize("changes", [{"seed": 1}, {"max_size": 8}], ids=["seed", "settings"])
    def test_one_of_another_kind_is_refused(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        changes: dict[str, Any],
        small_search: Small,
    ) -> None:
        source = str(undisturbed())
        text = refusal(
            RunDirectoryError, planted.data, tmp_path / "run", small_search(**changes), reference_from=source
        )
        assert text.startswith(f"{source}/reference holds the reference of other data, backbone settings or seed ")
        assert not (tmp_path / "run").exists()

    def test_a_folder_without_one_is_refused(self, planted: Planted, tmp_path: Path, small_search: Small) -> None:
        source = str(tmp_path / "nowhere")
        assert refusal(RunDirectoryError, planted.data, tmp_path / "run", small_search(), reference_from=source) == (
            f"{source} holds no finished reference: neither it nor its folder reference has a metrics.json. Expected a "
            "run directory of `ciess search`. Check the path, or leave --reference-from out to train one."
        )
        assert not (tmp_path / "run").exists()

    def test_the_run_that_is_overwritten_may_lend_its_own(
        self, planted: Planted, tmp_path: Path, references: list[int], small_search: Small
    ) -> None:
        out = str(tmp_path / "run")
        run_search(planted.data, small_search(), out)
        before = contents(tmp_path / "run" / "reference")
        run_search(planted.data, small_search(memory_weight=0.1), out, overwrite=True, reference_from=out)
        assert references == [0]
        assert contents(tmp_path / "run" / "reference") == before

    def test_a_run_that_goes_on_keeps_its_own(
        self, planted: Planted, tmp_path: Path, stop_at: Stop, references: list[int], small_search: Small
    ) -> None:
        stop_at(3)
        with pytest.raises(Stopped):
            run_search(planted.data, small_search(), str(tmp_path / "run"))
        stop_at(None)
        nowhere = str(tmp_path / "nowhere")
        run_search(planted.data, small_search(), str(tmp_path / "run"), resume=True, reference_from=nowhere)
        assert references == [0]


class TestPictures:
    def test_they_are_drawn_from_the_run_directory_alone(
        self, planted: Planted, tmp_path: Path, small_search: Small
    ) -> None:
        run, other = tmp_path / "run", tmp_path / "other"
        for out in (run, other):
            run_search(planted.data, small_search(), str(out))
        shutil.rmtree(run / "figures", ignore_errors=True)
        written = write_search_figures(str(run), str(other))
        assert [Path(path).name for path in written] == ["search.png", "iterations.png", "visited.png"]
        assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in written)

    def test_a_folder_without_a_search(self, tmp_path: Path) -> None:
        with pytest.raises(RunDirectoryError) as caught:
            write_search_figures(str(tmp_path))
        assert str(caught.value) == (
            f"{tmp_path} holds no search to draw: history.parquet of `ciess search` was expected. Check the path, or "
            "start one with `ciess search DATA --out DIR`."
        )
