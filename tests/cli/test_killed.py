"""Searches in processes that are really killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ciess.config.search import SearchConfig
from ciess.data import Interactions, read
from ciess.search.recorder import search_fingerprint
from ciess.storage.checkpoint import last_number, load_checkpoint
from ciess.storage.storage import Storage

Ciess = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def assert_same_run(short_fits: int) -> Callable[[Path, Path, Interactions], None]:
    """assert_same_run(first, second, data): equal bits in what two run directories hold, times aside."""

    def check(first: Path, second: Path, data: Interactions) -> None:
        runs = [Storage(first), Storage(second)]
        candidates = [run.read_table("candidates.parquet") for run in runs]
        assert len(candidates[0]) == short_fits
        assert candidates[0].equals(candidates[1])
        histories = [run.read_table("history.parquet") for run in runs]
        seconds = [name for name in histories[0].column_names if name.endswith("_seconds")]
        assert len(seconds) == 7
        histories = [history.drop_columns(seconds) for history in histories]
        assert len(histories[0]) == 16
        assert histories[0].equals(histories[1])
        config = SearchConfig.model_validate(runs[0].read_yaml("config.yaml")["config"])
        arrays = []
        for run in runs:
            state, notes = load_checkpoint(run.child("checkpoint"), search_fingerprint(data, config))
            assert state is not None
            assert notes == []
            arrays.append({name: (v.dtype, v.shape, v.tobytes()) for name, v in state["arrays"].items()})
        assert arrays[0] == arrays[1]
        for name in ("quality.parquet", "weights.safetensors", "history.parquet"):
            assert runs[0].read_bytes(f"reference/{name}") == runs[1].read_bytes(f"reference/{name}")

    return check


MORTAL = """
import os, signal, sys
from ciess.cli import main
from ciess.runs import search
from ciess.storage import Storage
from ciess.training import loop

place, number = sys.argv[1], int(sys.argv[2])
fits = 0
epoch, short_fit, write = loop.Training.epoch, search.short_fit, Storage.write_bytes

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def epoch_or_die(self, number_of_epoch):
    loss = epoch(self, number_of_epoch)
    if (place, number) in (("reference", number_of_epoch), ("fit", fits)):
        die()
    return loss

def count(*arguments):
    global fits
    fits += 1
    return short_fit(*arguments)

def write_or_die(self, name, content):
    write(self, name, content)
    if place == "checkpoint" and self.root.endswith(f"checkpoint/{number:06d}") and name == "values.json":
        die()

loop.Training.epoch, search.short_fit, Storage.write_bytes = epoch_or_die, count, write_or_die
main(sys.argv[3:])
"""


class TestKilled:
    def test_at_the_worst_moments(
        self,
        ciess: Ciess,
        interactions: Path,
        undisturbed: Path,
        tmp_path: Path,
        quick_search: list[str],
        short_fits: int,
        assert_same_run: Callable[[Path, Path, Interactions], None],
    ) -> None:
        """One run, thrice: in the training of the reference, in a short fit, between two files of a checkpoint."""
        out = tmp_path / "killed"
        command = ["search", str(interactions), "--out", str(out), *quick_search]

        def run_until(place: str, number: int, *options: str) -> list[str]:
            done = subprocess.run(
                [sys.executable, "-c", MORTAL, place, str(number), *command, *options],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == -signal.SIGKILL, done.stderr
            return done.stderr.splitlines()

        run_until("reference", 3)
        assert "reference: in training, epoch 2, best 0." in ciess("status", out)[1]
        run_until("fit", 6, "--resume")
        assert Storage(out).child("checkpoint").names() == ["000004", "000005"]
        assert "search: 2 of 16 iterations done" in ciess("status", out)[1]
        lines = run_until("checkpoint", 9, "--resume")
        assert f"Going on after 5 of {short_fits} short fits." in lines
        assert not [line for line in lines if line.startswith("reference: lightgcn at")]
        assert sorted(path.name for path in (out / "checkpoint" / "000009").iterdir()) == [
            *("arrays.safetensors", "values.json")
        ]
        status, _, err = ciess(*command, "--resume")
        assert status == 0
        assert (
            f"Checkpoint {out}/checkpoint/000009 cannot be used: it has no manifest, so its writing was cut short. "
            f"Going on from {out}/checkpoint/000008."
        ) in err.splitlines()
        assert_same_run(undisturbed, out, read(interactions))

    def test_from_outside(
        self,
        ciess: Ciess,
        interactions: Path,
        undisturbed: Path,
        tmp_path: Path,
        quick_search: list[str],
        short_fits: int,
        assert_same_run: Callable[[Path, Path, Interactions], None],
    ) -> None:
        """At a moment that nobody chose, by another process."""
        out = tmp_path / "killed"
        command = ["search", str(interactions), "--out", str(out), *quick_search]
        process = subprocess.Popen(
            [sys.executable, "-m", "ciess", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while last_number(Storage(out / "checkpoint")) < 5 and process.poll() is None:
                time.sleep(0.005)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL
        reached = last_number(Storage(out / "checkpoint"))
        assert 5 <= reached < short_fits
        status, _, err = ciess(*command, "--resume")
        assert status == 0
        assert f"Going on after {reached} of {short_fits} short fits." in err.splitlines()
        assert_same_run(undisturbed, out, read(interactions))
