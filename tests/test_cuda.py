"""What a GPU promises: close to the CPU in every step, and the contract of every method. Skipped without CUDA."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess import load, masks
from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.data.planted import Planted
from ciess.masks.ragged import kept_entries
from ciess.methods import METHODS
from ciess.models import BACKBONES
from ciess.storage.storage import Storage
from ciess.tables.table import CompressedTable
from ciess.training.fit import fit
from ciess.training.loop import FitRequest, Training
from ciess.training.losses import Batch
from ciess.training.prepared import prepare

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch can use")

BUDGETS = [Fraction(1, 2), Fraction(3, 4)]
SEED = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "pep": {"initial_threshold": -13.0, "learning_rate": 0.1, "max_steps": 150, "check_every": 5},
    "esapn": {"sizes": (2, 4, 8, 16), "epochs": 3, "batch_size": 100, "policy_learning_rate": 0.02},
    "optembed": {"max_epochs": 2, "population": 4, "generations": 2, "mutations": 2, "crossovers": 2, "parents": 3},
}

Config = Callable[..., RecommenderConfig]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_steps_on_the_same_triples_are_close_to_those_of_the_cpu(
    planted: Planted, small_config: Config, backbone: str
) -> None:
    data = planted.data
    model = {"message_dropout": 0.0} if backbone == "ngcf" else {}
    config = small_config(backbone, model=model)
    mask = masks.mixed(data.n, 16, 0.5, seed=1)
    triples = prepare(data, torch.device("cpu")).sampler.epoch(SEED, 1, 500)
    tables, losses = {}, {}
    for name in ("cpu", "cuda"):
        training = Training(data, FitRequest(config, mask, SEED), prepare(data, torch.device(name)))
        training.begin_epoch(1)
        batches = zip(triples.users, triples.positives, triples.negatives, strict=True)
        losses[name] = [float(training.step(Batch(*(part.to(name) for part in batch)))) for batch in batches]
        tables[name] = training.embedding().detach().cpu()
        quality = training.validate().mean_quality()
        losses[name].append(quality)
    np.testing.assert_allclose(losses["cuda"][:-1], losses["cpu"][:-1], rtol=1e-4)
    # Adam's steps have the sign of a gradient next to 0, so a few entries may differ by a step or two.
    off = (tables["cuda"] - tables["cpu"]).abs() > 1e-4
    assert off.float().mean() < 0.01
    assert losses["cuda"][-1] == pytest.approx(losses["cpu"][-1], rel=0.02)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_its_contract(
    planted: Planted, small_config: Config, tmp_path: Path, method: str, backbone: str
) -> None:
    data, plain = planted.data, small_config(backbone)
    shared = {name: getattr(plain, name) for name in RecommenderConfig.model_fields} | {"device": "cuda"}
    config = FitConfig(**shared, **SETTINGS)  # type: ignore[arg-type]
    tables = METHODS[method].compress(data, config, BUDGETS, SEED)
    for table in tables:
        assert table.target_sparsity is None or table.flag or masks.sparsity(table.mask) >= table.target_sparsity
    table = tables[-1]
    result = fit(data, FitRequest(config.recommender(), table.mask, SEED, epochs=2, initial=table.initial))
    kept = kept_entries(table.mask, 2 if backbone == "ncf" else 1, table.mask.width)
    assert (result.table[~kept] == 0).all()
    CompressedTable.from_fit(data, data, config.recommender(), table.mask, result, {}).save(Storage(tmp_path))
    users = np.arange(data.n_users)
    trained = result.recommender.score_users(torch.from_numpy(users).cuda()).cpu().numpy()
    np.testing.assert_allclose(load(tmp_path).scores(users), trained, rtol=1e-3, atol=1e-4)
