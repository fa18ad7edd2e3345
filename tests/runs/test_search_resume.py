"""A search that was stopped goes on as if nothing had happened, and may be made longer."""

import contextlib
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import FitError, RunDirectoryError
from ciess.runs import search as search_run
from ciess.runs.search import run_search
from ciess.search.proposals import Outcome, Proposal
from ciess.search.short_fit import short_fit
from ciess.storage.columns import HISTORY
from ciess.storage.storage import Storage

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

Call = Callable[..., Any]


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
        assert_same_run: Call,
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
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        stop_at: Stop,
        small_search: Small,
        assert_same_run: Call,
    ) -> None:
        for fits in range(FITS):
            stop_at(2)
            with pytest.raises(Stopped) if fits < FITS - 1 else contextlib.nullcontext():
                run_search(planted.data, small_search(), str(tmp_path / "run"), resume=fits > 0)
        assert_same_run(undisturbed(), tmp_path / "run", planted.data, small_search())

    def test_a_finished_search_is_left_as_it_is(
        self,
        planted: Planted,
        tmp_path: Path,
        stop_at: Stop,
        references: list[int],
        small_search: Small,
        contents: Call,
        untimed: Call,
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
        assert_same_run: Call,
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

    def test_fewer_episodes_than_were_reached(
        self, planted: Planted, tmp_path: Path, small_search: Small, contents: Call, refusal: Call
    ) -> None:
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
        self, planted: Planted, tmp_path: Path, stop_at: Stop, small_search: Small, contents: Call, refusal: Call
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
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        stop_at: Stop,
        small_search: Small,
        assert_same_run: Call,
    ) -> None:
        stop_at(FITS)
        with pytest.raises(Stopped):
            run_search(planted.data, small_search(episodes=4), str(tmp_path / "run"))
        stop_at(None)
        run_search(planted.data, small_search(), str(tmp_path / "run"), resume=True)
        assert_same_run(undisturbed(), tmp_path / "run", planted.data, small_search())

    def test_a_fit_that_breaks_down(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        stop_at: Stop,
        small_search: Small,
        assert_same_run: Call,
        refusal: Call,
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
        assert_same_run: Call,
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
        assert_same_run: Call,
        refusal: Call,
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


class TestReferenceFrom:
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
