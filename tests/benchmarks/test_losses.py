"""The script that compares losses: a row a training, known ones left out."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from ciess.data.planted import Planted


def script(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_setting_of_a_loss_is_a_row_that_is_not_done_twice(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = planted.data.train + planted.data.valid + planted.data.test
    source, out = tmp_path / "all.csv", tmp_path / "losses.csv"
    lines = [f"{user},{item}" for user, item in zip(known.users, known.items, strict=True)]
    source.write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    arguments = [str(source), "--sparsity", "0.95", "--losses", "squared", "--max-epochs", "2", "--threads", "1"]
    arguments += ["--out", str(out), "--work", str(tmp_path / "work")]
    module = script("losses")
    module.main(arguments)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["loss"], row["learning_rate"], row["decay"], row["batch_size"]) for row in rows] == [
        ("squared", "0.1", "0", "all"),
        ("squared", "0.03", "0", "all"),
        ("squared", "0.3", "0", "all"),
        ("squared", "0.1", "0.01", "all"),
    ]
    assert len({row["valid_quality_of_start"] for row in rows}) == 1
    assert all(float(row["best_valid_quality"]) >= float(row["valid_quality_of_start"]) for row in rows)
    assert not list((tmp_path / "work").rglob("*.safetensors"))
    capsys.readouterr()
    module.main(arguments)
    assert capsys.readouterr().out.strip() == "" and len(out.read_text().splitlines()) == 1 + 4
