"""The reference that a start begins from: trained once, shared, and trained anew on what a refit knows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess import load, masks
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.data.planted import Planted
from ciess.runs.fit import fit_tables
from ciess.storage.storage import Storage
from ciess.tables import protocol
from ciess.tables.protocol import train_and_choose
from ciess.tables.references import References, weights_of_result
from ciess.tables.spec import TableSpec
from ciess.training.loop import Training


def config(**changes: Any) -> FitConfig:
    plain: dict[str, Any] = {
        "max_size": 16,
        "threads": 1,
        "device": "cpu",
        "start": "projected",
        "gentle": {"max_epochs": 4, "evaluate_every": 2},
    }
    return FitConfig(**plain | changes)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Requests of every fit of the protocol."""
    seen: list[Any] = []

    def spy(data: Any, request: Any) -> Any:
        seen.append((len(data.train), request))
        return fit(data, request)

    fit = protocol.fit
    monkeypatch.setattr(protocol, "fit", spy)
    return seen


def test_it_is_trained_once_for_each_part(planted: Planted, tmp_path: Path, fits: list[Any]) -> None:
    data, references = planted.data, References(config(), 0, Storage(tmp_path))
    first = references(data)
    count = len(fits)
    again = References(config(), 0, Storage(tmp_path))(data)
    assert len(fits) == count > 0
    assert first["table"].shape == (data.n, 1, 16)
    assert all(torch.equal(first[name], again[name]) for name in first)
    refit = references(data.merged())
    assert [pairs for pairs, _ in fits[count:]] == [len(data.train) + len(data.valid)]
    assert not torch.equal(refit["table"], first["table"])


def test_a_searchs_own_reference_serves_and_is_refit_as_it_was_chosen(
    planted: Planted, tmp_path: Path, fits: list[Any]
) -> None:
    data, settings = planted.data, config(start="best")
    chosen = train_and_choose(
        data, TableSpec("reference", masks.full(data.n, 16), 0), settings, Storage(tmp_path / "search")
    )
    weights = weights_of_result(chosen.result, data.n, 16)
    references = References(config(), 0, Storage(tmp_path / "own"), (weights, chosen.trial, chosen.epoch))
    count = len(fits)
    assert references(data) is weights
    assert len(fits) == count
    references(data.merged())
    ((_, request),) = fits[count:]
    assert request.epochs == chosen.epoch
    assert request.config.training == chosen.trial.training


def test_tables_of_a_run_share_it_and_it_is_gone_in_the_end(planted: Planted, tmp_path: Path, fits: list[Any]) -> None:
    settings = config(method=("equal", "mixed"), sparsity=(0.5, 0.75))
    fit_tables(planted.data, settings, DataConfig(), str(tmp_path / "run"))
    # No other table has rows of all columns.
    full = [request for _, request in fits if request.mask.width == 16]
    assert len([request for request in full if request.epochs is not None]) == 1
    assert not (tmp_path / "run" / "progress").exists()


def test_a_full_table_of_the_run_is_its_training(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a full table the reference takes no epoch more, and the full table is what it is alone."""
    epochs: list[int] = []

    def spy(self: Training, number: int) -> float:
        if self.request.mask.width == 16 and self.request.epochs is None:
            epochs.append(number)
        return epoch(self, number)

    epoch = Training.epoch
    monkeypatch.setattr(Training, "epoch", spy)
    settings = config(method=("full",), start="best")
    fit_tables(planted.data, settings, DataConfig(), str(tmp_path / "alone"))
    alone = len(epochs)
    both = config(method=("full", "equal"), sparsity=(0.75,), start="best")
    fit_tables(planted.data, both, DataConfig(), str(tmp_path / "both"))
    assert len(epochs) == 2 * alone > 0
    tables = [load(tmp_path / run / "tables" / "full-s0") for run in ("alone", "both")]
    np.testing.assert_array_equal(tables[0].values, tables[1].values)
    assert not (tmp_path / "both" / "progress").exists()
