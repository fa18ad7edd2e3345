"""`python ray_jobs/sweep.py`, killed, broken or misused: what it keeps, what it says, and its exit code."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ciess.data import Interactions
from ciess.storage.storage import Storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[3]
SMALL = (
    *("--sparsities", "0.5", "--episodes", "1", "--iterations", "2", "--max-size", "8", "--candidates", "1"),
    *("--methods", "equal", "--preset", "paper"),
)
SETTINGS = (
    *("--settings", "training.max-epochs=10", "training.batch-size=500", "training.learning-rate=0.05"),
    *("agent.hidden=32", "agent.batch-size=256"),
)
TWO = (
    *("--memory-weights", "0.2", "--targets", "0.5", "--methods", "equal", "pep", "esapn", "optembed"),
    *("--pep.max-steps", "60", "--esapn.sizes", "2", "4", "8", "--esapn.epochs", "1", "--optembed.generations", "2"),
)
"""Two searches, and what learns its masks by itself."""
RAYS_OWN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Processes of Ray's that look for a dead Ray about a minute long before they end by themselves; they run no work."""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def parents() -> dict[int, int]:
    """Parent of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def command_line(pid: int) -> str:
    """Command line of a process, nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def processes_naming(folder: str) -> set[int]:
    """Processes that have a folder in their command line or environment."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if folder.encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                    found.add(int(entry.name))
    return {pid for pid in found if is_alive(pid)}


class Sweep:
    """A sweep in a process, session and temporary folder of its own."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        # Ray's sockets need paths of less than 107 characters.
        self.folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
        self.began = time.monotonic()
        with log.open("wb") as out, log.with_suffix(".err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "ray_jobs" / "sweep.py"), *arguments],
                stdout=out,
                stderr=err,
                env=os.environ | {"RAY_TMPDIR": self.folder, "COLUMNS": "100"},
                cwd=log.parent,
                start_new_session=True,
                # A shell in the background has its programs ignore it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def out(self) -> str:
        return self.log.read_text()

    @property
    def err(self) -> str:
        return self.log.with_suffix(".err").read_text()

    @property
    def texts(self) -> str:
        return f"exit code {self.process.poll()}\n{self.out}\n{self.err}"

    def end(self) -> int:
        """Exit code."""
        return self.process.wait(timeout=600)

    def descendants(self) -> set[int]:
        """Its process and all that it has started and not lost to another parent."""
        parent_of, found = parents(), {self.process.pid}
        while more := {pid for pid, parent in parent_of.items() if parent in found} - found:
            found |= more
        return found | processes_naming(self.folder)

    def table(self) -> str:
        """What was printed of the results: table and tests, without paths and seconds."""
        lines = self.out.splitlines()
        begin = next(number for number, line in enumerate(lines) if line.startswith("method "))
        shown = [line for line in lines[begin:] if not line.startswith(("wrote ", "time in "))]
        return "\n".join(shown)

    def clear(self) -> None:
        for pid in self.descendants() if self.process.poll() is None else processes_naming(self.folder):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, data: Interactions) -> Iterator[Callable[..., Sweep]]:
    """start(storage, ...): a sweep of a small data file."""
    place = tmp_path_factory.mktemp("sweeps")
    parts = (data.train, data.valid, data.test)
    pairs = sorted((int(u), int(i)) for part in parts for u, i in zip(part.users, part.items, strict=True))
    (place / "small.csv").write_text("user_id,item_id\n" + "".join(f"u{user},i{item}\n" for user, item in pairs))
    begun: list[Sweep] = []

    def call(storage: Path, *arguments: str) -> Sweep:
        log = place / f"{len(begun)}.log"
        options = ("--data", str(place / "small.csv"), "--storage", str(storage), "--name", "small")
        begun.append(Sweep(log, *options, *SMALL, *arguments))
        return begun[-1]

    yield call
    for sweep in begun:
        sweep.clear()


@pytest.fixture(scope="module")
def undisturbed(start: Callable[..., Sweep], tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Storage]:
    """A sweep of two searches that nobody disturbs, and its directory."""
    storage = tmp_path_factory.mktemp("undisturbed-sweep")
    sweep = start(storage, *TWO, *SETTINGS)
    assert sweep.end() == 0, sweep.texts
    return sweep, Storage(storage / "small")


class TestKilledDriver:
    def test_same_command_goes_on_to_the_same_results(
        self,
        start: Callable[..., Sweep],
        undisturbed: tuple[Sweep, Storage],
        tmp_path: Path,
        until: Callable[..., object],
    ) -> None:
        # One search after the other, so that one is finished when the other one is under way.
        command = (tmp_path, *TWO, *SETTINGS, "--max-concurrent-trials", "1")
        first = start(*command)
        searches = tmp_path / "small" / "searches"

        def one_of_two() -> bool:
            assert first.process.poll() is None, first.texts
            states = {place.name: (place / "seconds.json").exists() for place in searches.glob("*")}
            begun = [name for name, done in states.items() if not done and (searches / name / "checkpoint").exists()]
            return sorted(states.values()) == [False, True] and len(begun) == 1

        until(one_of_two, "one search was finished and the other had its first fit", 400)
        theirs = first.descendants()
        assert len(theirs) > 5
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(timeout=60)

        def left() -> list[int]:
            known = {pid for pid in theirs if is_alive(pid)} | processes_naming(first.folder)
            return [pid for pid in known if not command_line(pid).startswith(RAYS_OWN)]

        until(lambda: not left(), "everything that worked for the driver was gone", 60)
        done = [*searches.glob("*/seconds.json"), *(tmp_path / "small" / "references").glob("*/metrics.json")]
        finished = [file for folder in {file.parent for file in done} for file in folder.rglob("*.*") if file.is_file()]
        before = {file: file.stat().st_mtime_ns for file in finished if "figures" not in file.parts}
        assert len(done) == 2

        second = start(*command)
        assert second.end() == 0, second.texts
        assert "references: 1 of 1 are finished already" in second.out
        assert "searches: 1 of 2 are finished already" in second.out
        assert {file: file.stat().st_mtime_ns for file in before} == before
        whole, place = undisturbed
        methods = set(place.read_table("results.parquet")["method"].to_pylist())
        assert methods == {"equal", "ciess", "pep", "esapn", "optembed"}
        for file in ("results.parquet", "per_user.parquet"):
            tables = [run.read_table(file) for run in (Storage(tmp_path / "small"), place)]
            values = [t.drop_columns([n for n in t.column_names if n.endswith("seconds")]) for t in tables]
            assert values[0].num_rows and values[0].equals(values[1]), f"{file} differs"
        assert second.table() == whole.table()
        until(lambda: not [pid for pid in theirs if is_alive(pid)], "nothing was left of the killed driver")


class TestInterruptedDriver:
    def test_ends_at_once_without_another_stage(
        self, start: Callable[..., Sweep], tmp_path: Path, until: Callable[..., object]
    ) -> None:
        sweep = start(tmp_path, *SETTINGS, "--memory-weights", "0.2", "0.4", "--max-concurrent-trials", "1")

        def first_fit() -> bool:
            assert sweep.process.poll() is None, sweep.texts
            return any((tmp_path / "small" / "searches").glob("*/checkpoint"))

        until(first_fit, "a search had its first fit", 400)
        os.kill(sweep.process.pid, signal.SIGINT)
        assert sweep.end() == 130, sweep.texts
        assert "interrupted; " in sweep.err
        assert not any(line.startswith(("methods:", "retraining:", "method ")) for line in sweep.out.splitlines())


class TestBrokenSearch:
    def test_others_finish_and_the_reason_is_said_last(self, start: Callable[..., Sweep], tmp_path: Path) -> None:
        # Adam takes every weight to 1e12 or so: products of two stay finite, those of NCF's layers do not. References
        # and retrainings have a learning rate of their own.
        settings = (*SETTINGS, "short_fit.learning_rate=1e12", "short_fit.decay=0")
        backbones = ("--backbones", "lightgcn", "ncf")
        sweep = start(tmp_path, *backbones, "--memory-weights", "--targets", "0.5", *settings)
        assert sweep.end() == 1, sweep.texts
        place = Storage(tmp_path / "small")
        found = place.read_table("results.parquet").to_pylist()
        assert {row["backbone"] for row in found if row["search_id"]} == {"lightgcn"}
        assert {row["backbone"] for row in found if row["method"] == "equal"} == {"lightgcn", "ncf"}
        rows = [line.split() for line in sweep.table().splitlines() if line.startswith("ciess ")]
        marks = [row[-1] == "!" for row in rows if "searched" not in row]
        assert marks == [False, True], sweep.out
        # What breaks down by itself is no lost process, and another start would end the same way.
        assert "was lost" not in sweep.out
        assert "searches ncf-t0.5-gaussian-walk-s0: failed, " in sweep.out
        last = " ".join(sweep.err.splitlines()[-3:])
        assert "The loss is " in last
        assert "at learning rate 1e+12" in last
        assert "[ncf-t0.5-gaussian-walk-s0]" in last
        assert "Traceback" not in sweep.texts


class TestMisuse:
    def test_other_settings_in_the_same_directory_are_refused(
        self, start: Callable[..., Sweep], undisturbed: tuple[Sweep, Storage]
    ) -> None:
        storage = Path(undisturbed[1].root).parent
        sweep = start(storage, "--memory-weights", "0.7", "--targets", "0.5", *SETTINGS, "agent.gamma=0")
        assert sweep.end() == 2, sweep.texts
        refusal = sweep.err.strip().splitlines()[-1]
        assert refusal.startswith("sweep: ")
        assert "config.memory_weights was [0.2], now [0.7]" in refusal
        assert "config.settings was " in refusal
        assert "choose another --name" in refusal
        assert "Traceback" not in sweep.texts

    def test_workers_that_no_node_has_room_for_are_refused_within_a_minute(
        self, start: Callable[..., Sweep], tmp_path: Path
    ) -> None:
        sweep = start(tmp_path, *TWO, *SETTINGS, "--gpus-per-worker", "1")
        assert sweep.end() == 2, sweep.texts
        assert time.monotonic() - sweep.began < 60
        refusal = sweep.err.strip().splitlines()[-1]
        assert refusal.startswith("sweep: Nothing in this cluster has room for 1 CPU and 1 GPU")
        assert "--gpus-per-worker" in refusal
        assert "Traceback" not in sweep.texts
        assert not [*(tmp_path / "small").glob("*")]
