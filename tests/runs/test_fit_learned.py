"""Learned methods in a run of `ciess fit`: by methods made up here, and the real ones, killed."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciess import masks
from ciess.cli import main
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import InputError, RunDirectoryError
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.methods import METHODS
from ciess.methods.journal import Journal
from ciess.methods.method import Method
from ciess.runs.fit import fit_tables
from ciess.storage.storage import Storage
from ciess.tables.spec import TableSpec


def config(**changes: Any) -> FitConfig:
    settings: dict[str, Any] = {
        "max_size": 16,
        "min_size": 1,
        "start": "fresh",
        "device": "cpu",
        "threads": 1,
        "training": {"learning_rate": 0.01, "batch_size": 500, "max_epochs": 2, "evaluate_every": 1},
    }
    return FitConfig.model_validate(settings | changes)


def start(data: Interactions, out: Path, settings: FitConfig, **options: Any) -> str:
    return fit_tables(data, settings, DataConfig(), str(out), **options)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """(method, seed, budgets) of each call of `pep` and `esapn`, both made up."""
    seen: list[tuple[str, int, int]] = []

    def pep(
        data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, learning: Journal | None = None
    ) -> list[TableSpec]:
        seen.append(("pep", seed, len(budgets)))
        assert learning is not None
        learning.note(stage="search", step=5, sparsity=0.5)
        found = []
        for c in budgets:
            dense = np.zeros((data.n, 16), dtype=bool)
            dense.flat[np.random.default_rng(seed).permutation(dense.size)[: masks.budget(data.n, 16, c)]] = True
            found.append(TableSpec("pep", SparseMask.from_dense(dense, 16), seed, c, flag="forced"))
        return found

    def esapn(
        data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, learning: Journal | None = None
    ) -> list[TableSpec]:
        seen.append(("esapn", seed, len(budgets)))
        assert learning is not None
        learning.note(stage="stream", step=5, mean_size=2.5)
        return [TableSpec("esapn", PrefixMask(2 + np.arange(data.n) % 3, 16), seed)]

    def check(config: FitConfig) -> None:
        if config.max_size < 4:
            raise InputError("The largest size is too small.")

    monkeypatch.setitem(METHODS, "pep", Method(pep, learned=True))
    monkeypatch.setitem(METHODS, "esapn", Method(esapn, learned=True, precise=False, check=check))
    return seen


def test_masks_are_found_then_trained_like_all_others(
    planted: Planted, tmp_path: Path, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(method=("esapn", "equal", "pep"), sparsity=(0.8, 0.5))
    text = start(planted.data, tmp_path, settings)
    log = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("  choose")]
    assert log == [
        "lightgcn esapn-s0: finding masks",
        "  stream step 5, mean_size 2.5",
        f"  esapn-s0: sparsity {100 * (1 - (2 + np.arange(planted.data.n) % 3).mean() / 16):.2f} %",
        "[1/5] lightgcn esapn-s0",
        "[2/5] lightgcn equal-c80-s0",
        "[3/5] lightgcn equal-c50-s0",
        "lightgcn pep-s0: finding masks",
        "  search step 5, sparsity 0.5",
        "  pep-c80-s0 (forced): sparsity 80.00 %",
        "  pep-c50-s0 (forced): sparsity 50.00 %",
        "[4/5] lightgcn pep-c80-s0",
        "[5/5] lightgcn pep-c50-s0",
    ]
    run = Storage(tmp_path)
    assert run.child("tables").names() == ["equal-c50-s0", "equal-c80-s0", "esapn-s0", "pep-c50-s0", "pep-c80-s0"]
    assert run.child("learned").names() == ["esapn-s0", "pep-s0"]
    for name in ("learned-pep-s0", "allocation-pep-s0", "learned-esapn-s0", "allocation-esapn-s0"):
        assert f"wrote {tmp_path}/figures/{name}.png" in text.splitlines()
        assert (tmp_path / "figures" / f"{name}.png").exists()
        assert f'alt="{name}"' in (tmp_path / "report.html").read_text()
    # The mean size of esapn's table is 3 of 16 columns, and its row has no target.
    (line,) = [line.split() for line in text.splitlines() if line.startswith("esapn ")]
    share = 1 - (2 + np.arange(planted.data.n) % 3).sum() / (16 * planted.data.n)
    assert line[1:3] == ["-", f"{100 * share:.8g}"]
    assert all("forced" in line for line in text.splitlines() if line.startswith("pep  "))
    assert "forced: training did not reach the budget, and the entries furthest above their thresholds were" in text
    card = json.loads((tmp_path / "tables" / "pep-c80-s0" / "card.json").read_text())
    assert card["flag"] == "forced"
    assert 0 <= card["search"]["learning_seconds"] < 60


def test_resuming_finds_no_mask_twice(
    planted: Planted, tmp_path: Path, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    start(planted.data, tmp_path, config(method=("pep",), sparsity=(0.8,)))
    capsys.readouterr()
    start(planted.data, tmp_path, config(method=("pep",), sparsity=(0.8,)), resume=True)
    assert calls == [("pep", 0, 1)]
    assert capsys.readouterr().err == "[1/1] pep-c80-s0 is done already\n"
    # One more budget and seed, and another method: what is done is kept.
    before = (tmp_path / "tables" / "pep-c80-s0" / "card.json").read_bytes()
    start(planted.data, tmp_path, config(method=("pep", "esapn"), sparsity=(0.5, 0.8), seeds=(0, 1)), resume=True)
    assert calls[1:] == [("pep", 0, 2), ("pep", 1, 2), ("esapn", 0, 0), ("esapn", 1, 0)]
    assert (tmp_path / "tables" / "pep-c80-s0" / "card.json").read_bytes() == before
    assert Storage(tmp_path).child("tables").names() == [
        *("esapn-s0", "esapn-s1"),
        *("pep-c50-s0", "pep-c50-s1", "pep-c80-s0", "pep-c80-s1"),
    ]


def test_a_method_added_later_leaves_pictures_and_settings_of_the_others(
    planted: Planted, tmp_path: Path, calls: list[Any]
) -> None:
    """Settings of methods that make no table now may be left out, and those of a new one are its own."""
    first = config(method=("pep",), sparsity=(0.8,), pep={"max_steps": 7})
    start(planted.data, tmp_path, first)
    start(planted.data, tmp_path, config(method=("esapn",), esapn={"memory": 3}), resume=True)
    stored = Storage(tmp_path).read_yaml("config.yaml")["config"]
    assert (stored["method"], stored["pep"]["max_steps"], stored["esapn"]["memory"]) == (["pep", "esapn"], 7, 3)
    page = (tmp_path / "report.html").read_text()
    for name in ("learned-pep-s0", "allocation-pep-s0", "learned-esapn-s0", "allocation-esapn-s0"):
        assert f'alt="{name}"' in page
    with pytest.raises(RunDirectoryError, match=r"was made with other settings: config\.pep was .*'max_steps': 7"):
        start(planted.data, tmp_path, config(method=("pep",), sparsity=(0.8,)), resume=True)


def test_what_a_method_cannot_use_is_said_before_anything_is_written(
    planted: Planted, tmp_path: Path, calls: list[Any]
) -> None:
    settings = config(method=("pep", "esapn"), sparsity=(0.5,), max_size=2)
    with pytest.raises(InputError, match="The largest size is too small"):
        start(planted.data, tmp_path / "run", settings)
    assert calls == []
    assert not (tmp_path / "run").exists()


MORTAL = """
import os, signal, sys
from ciess.cli import main
from ciess.methods.journal import Journal

note, last = Journal.note, int(sys.argv[1])

def note_and_die(self, **row):
    note(self, **row)
    if len(self.rows) == last:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.note = note_and_die
main(sys.argv[2:])
"""

KILLED = {
    "pep": "--pep.max-steps 300 --pep.initial-threshold -13 --pep.learning-rate 0.1 --sparsity 0.5",
    "esapn": "--esapn.sizes 2 4 8 16 --esapn.epochs 3 --esapn.batch-size 60 --esapn.policy-learning-rate 0.02",
    "optembed": "--optembed.max-epochs 4 --optembed.patience 4 --optembed.population 4 --optembed.generations 4",
}
"""Settings by which each method notes a few rows."""
SMALL = "--max-size 16 --threads 1 --device cpu --training.batch-size 200 --training.max-epochs 1"


@pytest.mark.parametrize("method", KILLED)
def test_a_method_that_was_killed_ends_with_the_same_bits(planted: Planted, tmp_path: Path, method: str) -> None:
    """A real process, really killed, twice: after half and all but one of its rows."""
    pairs = planted.data.train + planted.data.valid + planted.data.test
    lines = [f"{user},{item}" for user, item in zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)]
    path = tmp_path / "interactions.csv"
    path.write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    command = ["fit", str(path), "--method", method, *KILLED[method].split()]
    command += SMALL.split()
    main([*command, "--out", str(tmp_path / "undisturbed")])
    runs = [Storage(tmp_path / name) for name in ("undisturbed", "killed")]
    place = f"learned/{method}-s0"
    rows = len(runs[0].read_table(f"{place}/history.parquet"))
    assert rows >= 6
    for last, option in ((rows // 2, []), (rows - 1, ["--resume"])):
        done = subprocess.run(
            [sys.executable, "-c", MORTAL, str(last), *command, "--out", runs[1].root, *option],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert runs[1].child(place, "checkpoint").names()
        assert not runs[1].exists(f"{place}/outcome.json")
    main([*command, "--out", runs[1].root, "--resume"])
    first, second = runs
    assert second.read_bytes(f"{place}/masks.safetensors") == first.read_bytes(f"{place}/masks.safetensors")
    histories = [run.read_table(f"{place}/history.parquet").to_pylist() for run in runs]
    for one, other in zip(*histories, strict=True):
        assert {name: value for name, value in one.items() if not name.endswith("seconds")} == {
            name: value for name, value in other.items() if not name.endswith("seconds")
        }
    assert second.child("learned", f"{method}-s0").names() == ["history.parquet", "masks.safetensors", "outcome.json"]
    (name,) = first.child("tables").names()
    weights = f"tables/{name}/weights.safetensors"
    assert second.read_bytes(weights) == first.read_bytes(weights)
