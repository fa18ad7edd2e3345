"""A retraining that was interrupted ends as an undisturbed one; a finished one may be added to."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.data import Interactions
from ciess.runs.retrain import retrain_run
from ciess.storage.columns import EQUAL_WON
from ciess.storage.storage import Storage
from ciess.tables.table import CompressedTable
from ciess.training import loop as fit_module
from ciess.training.loop import Training

Call = Callable[..., Any]


def same(first: Storage, second: Storage) -> None:
    """What two runs found, but the seconds."""
    for file in ("results.parquet", "retrained.parquet", "per_user.parquet"):
        tables = [run.read_table(file) for run in (first, second)]
        found = [table.drop_columns("seconds") if "seconds" in table.column_names else table for table in tables]
        assert found[0].equals(found[1]), file
    assert first.child("tables").names() == second.child("tables").names()
    for name in first.child("tables").names():
        for file in ("weights.safetensors", "model.safetensors", "edges.parquet", "history.parquet"):
            assert first.read_bytes(f"tables/{name}/{file}") == second.read_bytes(f"tables/{name}/{file}"), (name, file)


class TestGoingOn:
    def test_an_interrupted_retraining_ends_as_an_undisturbed_one(
        self,
        retrained: tuple[Path, str],
        searched: Path,
        data: Interactions,
        monkeypatch: pytest.MonkeyPatch,
        settings: Call,
    ) -> None:
        """Broken off every 25 epochs, and before every table is saved."""
        train, save = Training.epoch, CompressedTable.save
        done = {"epochs": 0}
        unsaved: set[str] = set()

        def epoch(self: Training, number: int) -> float:
            done["epochs"] += 1
            if done["epochs"] % 25 == 0:
                raise KeyboardInterrupt
            return train(self, number)

        def save_or_not(self: CompressedTable, folder: Any) -> None:
            if folder.root not in unsaved:
                unsaved.add(folder.root)
                raise KeyboardInterrupt
            save(self, folder)

        monkeypatch.setattr(fit_module.Training, "epoch", epoch)
        monkeypatch.setattr(CompressedTable, "save", save_or_not)
        text, breaks = "", 0
        while not text:
            assert breaks < 60
            try:
                text = retrain_run(str(searched), settings(0.8, 0.9, 0.93), data)
            except KeyboardInterrupt:
                breaks += 1
        assert breaks > len(unsaved) == 8
        same(Storage(searched), Storage(retrained[0]))
        assert not (searched / "progress").exists()
        assert text.replace(str(searched), "OUT") == retrained[1].replace(str(retrained[0]), "OUT")

    def test_a_finished_one_trains_nothing(
        self,
        retrained: tuple[Path, str],
        data: Interactions,
        tmp_path: Path,
        trained_epochs: list[int],
        undrawn: None,
        settings: Call,
    ) -> None:
        shutil.copytree(retrained[0], tmp_path / "run")
        text = retrain_run(str(tmp_path / "run"), settings(0.9, 0.8), data)
        assert trained_epochs == []
        results = [
            sorted(map(str, Storage(run).read_table("results.parquet").to_pylist()))
            for run in (tmp_path / "run", retrained[0])
        ]
        assert results[0] == results[1]
        assert text.splitlines()[0] == "ratings, lightgcn"

    def test_seeds_and_budgets_may_be_added(
        self,
        retrained: tuple[Path, str],
        data: Interactions,
        tmp_path: Path,
        undrawn: None,
        words: Call,
        settings: Call,
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(retrained[0], out)
        text = retrain_run(str(out), settings(0.8, seeds=(1,), compare=("equal", "full")), data)
        run = Storage(out)
        recorded = run.read_table("retrained.parquet").to_pylist()
        assert sorted({(row["target_sparsity"], row["seed"]) for row in recorded}) == [(0.8, 0), (0.8, 1), (0.9, 0)]
        head, *lines = [words(line) for line in text.partition("\n\n")[0].splitlines()[1:]]
        by_name = {line[0] + line[1]: line for line in lines}
        assert by_name["ciess80 %"][head.index("seeds")] == "2"
        assert by_name["ciess90 %"][head.index("seeds")] == "1"
        assert " ±" in by_name["ciess80 %"][head.index("valid quality")]
        winners = {row["seed"]: row["origin"] for row in recorded if row["selected"] and row["target_sparsity"] == 0.8}
        assert winners == {0: "equal", 1: "equal"}
        assert by_name["ciess80 %"][-1] == EQUAL_WON
