"""Runs of `ciess fit` in processes of their own, killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ciess.cli import main
from ciess.data.planted import Planted
from ciess.runs.fit import TrainingProgress
from ciess.storage.storage import Storage

MORTAL = """
import os, signal, sys
from ciess.cli import main
from ciess.runs import fit
from ciess.tables.table import CompressedTable

victim, place, epoch = sys.argv[1], sys.argv[2], int(sys.argv[3])
save = CompressedTable.save

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def on_epoch(self, name, stage, record):
    print(name, stage, record.epoch, file=sys.stderr, flush=True)
    if (name, stage, record.epoch) == (victim, place, epoch):
        die()

def save_or_die(self, folder):
    if place == "save" and folder.root.endswith(victim):
        die()
    save(self, folder)

fit.TrainingProgress.on_epoch = on_epoch
CompressedTable.save = save_or_die
main(sys.argv[4:])
"""


class TestKilled:
    """Real processes, really killed: whatever they were at, the run ends as if nothing had happened."""

    def test_a_killed_run_goes_on_to_the_same_results(
        self, planted: Planted, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pairs = planted.data.train + planted.data.valid + planted.data.test
        lines = [f"{user},{item}" for user, item in zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)]
        path = tmp_path / "interactions.csv"
        path.write_text("\n".join(["user_id,item_id", *lines]) + "\n")
        settings = "--max-size 16 --sparsity 0.8 --seeds 0 1 --threads 1 --device cpu --training.batch-size 500 "
        settings += "--backbone ngcf --model.width 12 --training.learning-rate 0.002 --training.max-epochs 9 "
        settings += "--training.evaluate-every 2"
        command = ["fit", str(path), *settings.split(), "--start", "fresh"]
        main([*command, "--out", str(tmp_path / "undisturbed")])
        trained.clear()

        killed = tmp_path / "killed"
        name = "equal-c80-s1"

        def run_until(place: str, epoch: int, *options: str) -> list[str]:
            done = subprocess.run(
                [sys.executable, "-c", MORTAL, name, place, str(epoch), *command, "--out", str(killed), *options],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == -signal.SIGKILL, done.stderr
            return [line for line in done.stderr.splitlines() if line.startswith(name)]

        table = killed / "tables" / name
        run_until("choose", 7)
        assert (killed / "tables" / "equal-c80-s0" / "card.json").exists()
        assert not table.exists()
        # The checkpoint is of epoch 6.
        assert run_until("refit", 3, "--resume")[0] == f"{name} choose 7"
        assert not table.exists()
        assert run_until("save", 0, "--resume")[0] == f"{name} refit 3"
        assert (table / "history.parquet").exists()
        assert not (table / "card.json").exists()

        # All that is left is to test and to save.
        monkeypatch.setattr(TrainingProgress, "on_epoch", lambda self, *progress: pytest.fail("trained"))
        main([*command, "--out", str(killed), "--resume"])
        assert trained == [name]
        runs = [Storage(tmp_path / folder) for folder in ("undisturbed", "killed")]
        results = [run.read_table("results.parquet").drop_columns("seconds") for run in runs]
        assert results[0].num_rows == 2 * 2 * 7 + 2 * 2
        assert results[0].equals(results[1])
        assert runs[0].read_table("per_user.parquet").equals(runs[1].read_table("per_user.parquet"))
        for at in ("equal-c80-s0", name):
            for file in ("weights.safetensors", "model.safetensors", "edges.parquet", "history.parquet"):
                first, second = (run.read_bytes(f"tables/{at}/{file}") for run in runs)
                assert first == second, file
        assert runs[1].child("progress").names() == []
