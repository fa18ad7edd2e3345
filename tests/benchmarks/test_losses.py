"""The script that compares losses: a row a training, known ones left out."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def test_every_setting_of_a_loss_is_a_row_that_is_not_done_twice(
    script: Callable[[str], ModuleType], planted_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "losses.csv"
    arguments = [str(planted_csv), "--sparsity", "0.95", "--losses", "squared", "--max-epochs", "2", "--threads", "1"]
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
