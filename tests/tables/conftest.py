"""Tables of quick fits: one for each backbone and kind of mask, and one that was saved."""

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.data.planted import planted as make_planted
from ciess.masks.mask import Mask, PrefixMask, SparseMask
from ciess.models import BACKBONES
from ciess.tables.card import CARD
from ciess.tables.table import CompressedTable
from ciess.training.fit import FitResult, fit
from ciess.training.loop import FitRequest

MAX_SIZE = 16
Trained = tuple[CompressedTable, FitResult, Mask]


@pytest.fixture(scope="session")
def empty_row() -> int:
    """A row of which the masks of `trained` keep nothing."""
    return 3


@pytest.fixture(scope="session")
def data() -> Interactions:
    """48 users with whole numbers as ids, fewer than 40 items with names."""
    made = make_planted(1, n_users=48, n_items=40, interactions_per_user=14).data
    names = pa.array([f"film-{number:02d}" for number in made.item_ids.to_pylist()])
    return dataclasses.replace(made, user_ids=pa.array(np.arange(48) * 7 + 100), item_ids=names)


@pytest.fixture(scope="session")
def trained(
    data: Interactions, small_config: Callable[..., RecommenderConfig], empty_row: int
) -> Callable[[str, str], Trained]:
    """trained(backbone, kind of mask): a refit of two epochs, one row of which keeps nothing, and its table."""

    @cache
    def make(backbone: str, kind: str) -> Trained:
        generator, tables = np.random.default_rng(5), 2 if backbone == "ncf" else 1
        mask: Mask
        if kind == "prefix":
            sizes = generator.integers(1, 12, data.n).astype(np.int16)
            sizes[empty_row] = 0
            mask = PrefixMask(sizes, MAX_SIZE)
        else:
            kept = generator.random((data.n, tables * MAX_SIZE)) < 0.2
            kept[empty_row] = False
            mask = SparseMask.from_dense(kept, MAX_SIZE)
        config, trained_on = small_config(backbone, max_size=MAX_SIZE), data.merged()
        result = fit(trained_on, FitRequest(config, mask, seed=3, epochs=2, evaluate=False))
        card = {"method": "equal", "target_sparsity": 0.9, "seed": 3, "test": {"Recall@20": 0.1 + 0.2}}
        return CompressedTable.from_fit(data, trained_on, config, mask, result, card), result, mask

    return make


@pytest.fixture(params=["prefix", "sparse"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(BACKBONES))
def backbone(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(trained: Callable[[str, str], Trained], tmp_path: Path) -> Path:
    """A saved NCF table, which has something in each of its files."""
    trained("ncf", "prefix")[0].save(tmp_path / "table")
    return tmp_path / "table"


@pytest.fixture(scope="session")
def card_of() -> Callable[[Path], dict[str, Any]]:
    """card_of(folder of a saved table): its card, unchecked."""
    return lambda folder: dict(json.loads((folder / CARD).read_text()))
