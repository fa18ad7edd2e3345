"""The script of soft masks: sizes that keep their sum, and a gradient that finds rows of use."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

Script = Callable[[str], ModuleType]


def test_soft_sizes_keep_their_sum_and_so_does_a_small_step(script: Script) -> None:
    soft_sizes = script("soft_masks").soft_sizes
    logs = torch.linspace(-2, 5, 40, dtype=torch.float64, requires_grad=True)
    sizes = soft_sizes(logs, 500.0, 64)
    assert float(sizes.detach().sum()) == pytest.approx(500, abs=1e-3)
    assert float(sizes.detach().min()) >= 1 and float(sizes.detach().max()) <= 64
    # Of any weights of the sizes, the gradient moves none of the total.
    (sizes * torch.linspace(0, 1, 40, dtype=torch.float64)).sum().backward()
    assert logs.grad is not None
    assert bool(logs.grad.any())
    assert float(logs.grad.sum()) == pytest.approx(0, abs=1e-6)


def test_every_few_steps_are_a_row(script: Script, planted_csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "soft.csv"
    arguments = [str(planted_csv), "--sparsity", "0.95", "--steps", "10", "--out", str(out)]
    for loss_on in ("training", "searched"):
        script("soft_masks").main([*arguments, "--loss-on", loss_on])
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["loss_on"], row["step"]) for row in rows] == [
        (loss_on, step) for loss_on in ("training", "searched") for step in ("0", "5", "10")
    ]
    assert rows[0]["choice_quality"] == rows[3]["choice_quality"]
    searched = [float(row["searched_quality"]) for row in rows[3:]]
    assert max(searched[1:]) > searched[0]
