"""A search and its run directory: every outcome is kept the moment it is told, and nothing twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ciess.config.search import SearchConfig
from ciess.data import Pairs
from ciess.data.planted import Planted
from ciess.errors import RunDirectoryError, SearchError
from ciess.search.candidates import to_table
from ciess.search.environment import Environment
from ciess.search.proposals import Outcome, Proposal
from ciess.search.recorder import Recorder, search_fingerprint
from ciess.search.search import Search
from ciess.storage.checkpoint import load_checkpoint
from ciess.storage.storage import Storage

N_USERS, N_ITEMS = 9, 6


@pytest.fixture
def search(small_search: Callable[..., SearchConfig]) -> Callable[..., Search]:
    """search(**changes): of two rounds of two fits, and none of equal sizes unless they are asked for."""
    users = np.repeat(np.arange(N_USERS), 3)
    train = Pairs.sorted(users, (users + np.tile([0, 1, 3], N_USERS)) % N_ITEMS)
    n = N_USERS + N_ITEMS
    environment = Environment(
        train, N_USERS, N_ITEMS, 8, np.linspace(0.3, 0.7, n, dtype=np.float32), np.ones(n, np.bool_)
    )
    return lambda **changes: Search(small_search(**{"max_size": 8, "include_equal": False} | changes), environment)


def fitted(proposal: Proposal) -> Outcome:
    """Stands for a short fit."""
    quality = np.linspace(0.1, 0.6, N_USERS) * proposal.sizes[:N_USERS] / 8
    return Outcome(*proposal.slot, quality.astype(np.float32), 2.0, 1.0)


@pytest.fixture
def recorder(search: Callable[..., Search]) -> Callable[..., Recorder]:
    """recorder(run, **changes): of `search(**changes)`."""
    return lambda run, **changes: Recorder(search(**changes), run, "abc")


def contents(run: Storage) -> dict[str, tuple[bytes, int]]:
    """Every file with its time, so that writing the same again shows too."""
    paths = [path for path in Path(run.root).rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def untimed(table: pa.Table) -> pa.Table:
    return table.drop_columns([name for name in table.column_names if name.endswith("_seconds")])


def found(run: Storage) -> tuple[Any, ...]:
    """What two equal searches have in common."""
    state, notes = load_checkpoint(run.child("checkpoint"), "abc")
    assert state is not None
    assert notes == []
    arrays = {name: (values.dtype, values.shape, values.tobytes()) for name, values in state["arrays"].items()}
    return arrays, untimed(run.read_table("history.parquet")), run.read_table("candidates.parquet")


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "run")


class TestTelling:
    @pytest.mark.parametrize("include_equal", [False, True])
    def test_true_when_a_round_is_completed(
        self, run: Storage, include_equal: bool, recorder: Callable[..., Recorder]
    ) -> None:
        """Equal sizes are a round of their own: 0.5 and 0.7 of 8 columns are 4, 2 and 2 filled up."""
        recording = recorder(run, include_equal=include_equal, sparsities=(0.5, 0.7))
        said = []
        while proposals := recording.search.ask():
            said.append([recording.tell(fitted(proposal)) for proposal in reversed(proposals)])
        assert said == [*([[False, False, True]] if include_equal else []), [False, True], [False, True]]

    def test_after_each_outcome_the_directory_holds_it(
        self, run: Storage, recorder: Callable[..., Recorder], search: Callable[..., Search]
    ) -> None:
        recording = recorder(run)
        told = 0
        while proposals := recording.search.ask():
            recording.tell(fitted(proposals[0]))
            told += 1
            state, notes = load_checkpoint(run.child("checkpoint"), "abc")
            assert (state is not None, notes) == (True, [])
            fresh = search()
            assert state is not None
            fresh.load_state_dict(state)
            assert fresh.fits_done == recording.search.fits_done == told
            rows = run.read_table("history.parquet").to_pylist() if told > 1 else []
            assert [(row["lane"], row["iteration"]) for row in rows] == [
                (lane, iteration) for iteration in range(1, told // 2 + 1) for lane in (0, 1)
            ]
        assert told == 4

    @pytest.mark.parametrize("told", [1, 2, 4])
    def test_a_known_outcome_writes_nothing(self, run: Storage, told: int, recorder: Callable[..., Recorder]) -> None:
        """Not even the same again, in the middle of a round, after it, and when all is done."""
        recording, outcomes = recorder(run), []
        for _ in range(told):
            outcomes.append(fitted(recording.search.ask()[0]))
            recording.tell(outcomes[-1])
        before = contents(run)
        assert before
        assert [recording.tell(outcome) for outcome in outcomes] == [False] * told
        assert contents(run) == before

    def test_a_refused_outcome_writes_nothing(self, run: Storage, recorder: Callable[..., Recorder]) -> None:
        recording = recorder(run)
        first, second = recording.search.ask()
        recording.tell(fitted(first))
        before = contents(run)
        with pytest.raises(SearchError):
            recording.tell(Outcome(*second.slot, np.ones(3, np.float32)))
        assert contents(run) == before

    def test_seconds_of_checkpoints_are_those_of_the_whole_round(
        self, run: Storage, monkeypatch: pytest.MonkeyPatch, recorder: Callable[..., Recorder]
    ) -> None:
        """Every look at the clock is a second, and both outcomes of a round write a checkpoint."""
        now = iter(range(10**6))
        monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))
        recording = recorder(run)
        while proposals := recording.search.ask():
            recording.tell(fitted(proposals[0]))
        rows = run.read_table("history.parquet").to_pylist()
        assert [row["checkpoint_seconds"] for row in rows] == [1.0] * 4

    def test_the_search_knows_its_directory(self, run: Storage, recorder: Callable[..., Recorder]) -> None:
        assert recorder(run).search.run is run


class TestGoingOn:
    def test_a_fresh_directory(self, run: Storage, recorder: Callable[..., Recorder]) -> None:
        recording = recorder(run)
        assert recording.restore() == []
        assert recording.search.fits_done == 0
        assert not run.exists()

    @pytest.mark.parametrize("stops", [(1,), (2,), (3,), (1, 2, 3), (4,)])
    def test_it_ends_as_an_undisturbed_one(
        self, tmp_path: Path, stops: tuple[int, ...], recorder: Callable[..., Recorder]
    ) -> None:
        whole, halted = Storage(tmp_path / "whole"), Storage(tmp_path / "halted")
        recording = recorder(whole)
        while proposals := recording.search.ask():
            for proposal in proposals:
                recording.tell(fitted(proposal))
        recording.finish()
        recording = recorder(halted)
        for told in range(1, 5):
            recording.tell(fitted(recording.search.ask()[-1]))
            if told in stops:
                # Nothing is handed over but the directory.
                asked = {proposal.slot: proposal.sizes.tobytes() for proposal in recording.search.ask()}
                recording = recorder(halted)
                assert recording.restore() == []
                assert recording.search.fits_done == told
                assert {p.slot: p.sizes.tobytes() for p in recording.search.ask()} == asked
        recording.finish()
        assert found(halted) == found(whole)

    def test_its_files_follow_its_checkpoint(self, run: Storage, recorder: Callable[..., Recorder]) -> None:
        """A history that was written after the last whole checkpoint would have rows of fits that are made again."""
        recording = recorder(run)
        for _ in range(2):
            recording.tell(fitted(recording.search.ask()[0]))
        recording.finish()
        before = found(run)
        run.write_bytes("history.parquet", b"half")
        run.delete("candidates.parquet")
        recorder(run).restore()
        assert found(run) == before
        assert len(run.read_table("history.parquet")) == 2

    def test_a_damaged_checkpoint_is_said(self, run: Storage, recorder: Callable[..., Recorder]) -> None:
        recording = recorder(run)
        for _ in range(2):
            recording.tell(fitted(recording.search.ask()[0]))
        run.write_bytes("checkpoint/000002/values.json", b"{}")
        recording = recorder(run)
        assert recording.restore() == [
            f"Checkpoint {run.root}/checkpoint/000002 cannot be used: values.json has changed. Going on from "
            f"{run.root}/checkpoint/000001."
        ]
        assert recording.search.fits_done == 1

    def test_another_search_is_refused(
        self, run: Storage, recorder: Callable[..., Recorder], search: Callable[..., Search]
    ) -> None:
        recording = recorder(run)
        recording.tell(fitted(recording.search.ask()[0]))
        with pytest.raises(RunDirectoryError, match="is the checkpoint of another run"):
            Recorder(search(), run, "xyz").restore()

    def test_finish_writes_masks_and_history_as_they_stand(
        self, run: Storage, recorder: Callable[..., Recorder]
    ) -> None:
        recording = recorder(run)
        for _ in range(3):
            recording.tell(fitted(recording.search.ask()[0]))
        recording.finish()
        known = recording.search
        assert run.read_table("history.parquet").equals(known.history)
        assert run.read_table("candidates.parquet").equals(to_table(known.visited, known.environment.n))
        assert len(known.visited) == 2


class TestFingerprint:
    def test_what_changes_no_bit_of_a_search_is_left_out(
        self, planted: Planted, small_search: Callable[..., SearchConfig]
    ) -> None:
        alone = search_fingerprint(planted.data, small_search())
        assert search_fingerprint(planted.data, small_search(episodes=8, threads=2, device="cuda")) == alone
        for changes in ({"seed": 1}, {"lanes": 1}, {"iterations": 3}, {"agent": {"hidden": 9}}, {"backbone": "ncf"}):
            assert search_fingerprint(planted.data, small_search(**changes)) != alone
