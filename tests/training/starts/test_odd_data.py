"""Starts and losses on data with nothing to spare: they work, or say what is wrong."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.data import Interactions, Pairs
from ciess.errors import FitError
from ciess.methods.sized import sized
from ciess.storage.storage import Storage
from ciess.tables.protocol import train_table
from ciess.tables.spec import TableSpec

BACKBONES = ["lightgcn", "ncf", "ngcf", "items"]


def interactions(train: list[list[int]], valid: list[list[int]], test: list[list[int]], n_items: int) -> Interactions:
    def pairs(by_user: list[list[int]]) -> Pairs:
        users = np.repeat(np.arange(len(by_user)), [len(items) for items in by_user])
        return Pairs.sorted(users, np.array([item for items in by_user for item in items], dtype=np.int64))

    return Interactions(
        name="odd",
        source="odd",
        user_ids=pa.array(range(len(train))),
        item_ids=pa.array(range(n_items)),
        train=pairs(train),
        valid=pairs(valid),
        test=pairs(test),
        split_seed=None,
        sha256="0" * 64,
        notes=(),
    )


def settings(backbone: str, **changes: Any) -> FitConfig:
    model = {"hidden": (8, 4)} if backbone == "ncf" else {}
    plain = {"max_size": 16, "threads": 1, "device": "cpu", "model": model, "gentle": {"max_epochs": 3}}
    return FitConfig(backbone=backbone, **plain, **changes)


def trained(data: Interactions, config: FitConfig, run: Storage) -> list[dict[str, Any]]:
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    spec = TableSpec("equal", masks.equal(data.n, 16, 0.5, bounds=bounds), 0, masks.exact(0.5))
    return train_table(data, spec, config, run, refit=False).rows


@pytest.mark.parametrize("backbone", BACKBONES)
def test_fewer_rows_than_columns(tiny: Interactions, backbone: str, tmp_path) -> None:
    """5 users and 7 items under 16 columns, with items that nobody has in training."""
    rows = trained(tiny, settings(backbone), Storage(tmp_path))
    assert all(np.isfinite(row["value"]) for row in rows)
    (table,) = sized(tiny, settings(backbone), [masks.exact(0.7)], 0)
    assert masks.sparsity(table.mask) >= masks.exact(0.7)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_one_user(backbone: str, tmp_path) -> None:
    data = interactions([[0, 1]], [[2]], [[3]], 5)
    rows = trained(data, settings(backbone), Storage(tmp_path))
    assert all(np.isfinite(row["value"]) for row in rows)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_one_item_is_refused(backbone: str, tmp_path) -> None:
    """Nothing is left to rank, and nothing outside anyone's history to learn from."""
    data = interactions([[0], [0]], [[], []], [[], []], 1)
    data = dataclasses.replace(data, valid=Pairs.sorted(np.array([0]), np.array([0])))
    with pytest.raises(FitError, match=r"2 have all 1 of them, but a training pair needs an item inside and one outs"):
        trained(data, settings(backbone, loss="bpr"), Storage(tmp_path))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_user_with_everything_is_refused_by_name(backbone: str, tmp_path) -> None:
    data = interactions([[0, 1, 2], [0]], [[], [1]], [[], [2]], 3)
    with pytest.raises(FitError, match=r"0 users have no training item and 1 have all 3 of them"):
        trained(data, settings(backbone, loss="bpr"), Storage(tmp_path))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("loss", ["bpr", "softmax", "squared"])
def test_a_loss_that_overflows_after_a_start_is_refused(planted, backbone: str, loss: str, tmp_path) -> None:
    gentle = {"learning_rate": 1e30, "max_epochs": 5, "batch_size": 500}
    model = {"hidden": (8, 4)} if backbone == "ncf" else {}
    config = FitConfig(backbone=backbone, max_size=16, threads=1, device="cpu", loss=loss, gentle=gentle, model=model)
    with pytest.raises(FitError, match=r"The loss is (nan|inf)|scores that are not numbers"):
        trained(planted.data, config, Storage(tmp_path))
