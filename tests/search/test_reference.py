from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.data.planted import planted as make_planted
from ciess.errors import RunDirectoryError
from ciess.masks.mask import PrefixMask
from ciess.search.reference import Reference, train_reference
from ciess.storage.storage import Storage
from ciess.tables import protocol as reference_module
from ciess.training.fit import FitResult, fit
from ciess.training.history import EpochRecord
from ciess.training.loop import FitRequest

Fits = list[tuple[FitRequest, FitResult]]


@pytest.fixture(scope="module")
def config(small_config: Callable[..., RecommenderConfig]) -> RecommenderConfig:
    return small_config(learning_rate=0.05, max_epochs=12, evaluate_every=2, patience=2)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    seen: Fits = []

    def spy(data: Interactions, request: FitRequest) -> FitResult:
        seen.append((request, fit(data, request)))
        return seen[-1][1]

    monkeypatch.setattr(reference_module, "fit", spy)
    return seen


def assert_same(first: Reference, second: Reference) -> None:
    np.testing.assert_array_equal(first.quality, second.quality)
    np.testing.assert_array_equal(first.counted, second.counted)
    assert (first.metrics, first.epochs) == (second.metrics, second.epochs)
    assert first.quality.dtype == second.quality.dtype == np.float32
    assert first.counted.dtype == second.counted.dtype == np.bool_
    assert first.weights.keys() == second.weights.keys()
    for name, value in first.weights.items():
        torch.testing.assert_close(value, second.weights[name], rtol=0, atol=0)


def test_it_is_the_full_model_trained_until_validation_stops_to_improve(
    planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits
) -> None:
    found = train_reference(planted.data, config, 3, Storage(tmp_path))
    ((request, result),) = fits
    assert isinstance(request.mask, PrefixMask)
    assert set(request.mask.sizes.tolist()) == {config.max_size}
    assert (request.seed, request.epochs) == (3, None)
    assert found.epochs == result.best_epoch
    assert result.validation is not None
    assert found.metrics == result.validation.means() | {"quality": result.validation.mean_quality()}
    assert not Storage(tmp_path).exists("progress")


def test_qualities_are_those_of_equations_8_and_9(
    tiny: Interactions, planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits
) -> None:
    for name, data in (("tiny", tiny), ("planted", planted.data)):
        found = train_reference(data, config, 0, Storage(tmp_path / name))
        validation = fits[-1][1].validation
        assert validation is not None
        users = np.array(
            [np.mean([values[user] for values in validation.values.values()]) for user in range(data.n_users)]
        )
        assert len(validation.values) == 6
        np.testing.assert_allclose(found.quality[: data.n_users], users, rtol=1e-5)
        held_out = np.isin(np.arange(data.n_users), data.valid.users)
        np.testing.assert_array_equal(found.counted[: data.n_users], held_out)
        for item in range(data.n_items):
            raters = data.train.users[data.train.items == item]
            row = data.n_users + item
            assert found.counted[row] == (len(raters) > 0)
            assert found.quality[row] == pytest.approx(users[raters].mean() if len(raters) else 0.0, rel=1e-5)
    # tiny has a user without validation and items without a training user.
    assert not train_reference(tiny, config, 0, Storage(tmp_path / "tiny")).counted.all()


def test_it_is_trained_once(planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits) -> None:
    first = train_reference(planted.data, config, 0, Storage(tmp_path))
    second = train_reference(planted.data, config, 0, Storage(tmp_path))
    assert len(fits) == 1
    assert_same(first, second)
    table = Storage(tmp_path).read_table("quality.parquet")
    data = planted.data
    assert table["side"].to_pylist() == ["user"] * data.n_users + ["item"] * data.n_items
    assert table["code"].to_pylist() == [*range(data.n_users), *range(data.n_items)]


@pytest.mark.parametrize("backbone", ["lightgcn", "ngcf", "ncf"])
def test_its_weights_are_a_start_for_another_fit(
    planted: Planted, small_config: Callable[..., RecommenderConfig], tmp_path: Path, fits: Fits, backbone: str
) -> None:
    config = small_config(backbone, max_epochs=4, evaluate_every=2)
    weights = train_reference(planted.data, config, 0, Storage(tmp_path)).weights
    ((request, trained),) = fits
    again = fit(planted.data, FitRequest(config, request.mask, seed=1, epochs=0, initial=weights))
    np.testing.assert_array_equal(again.table, trained.table)
    for name, value in trained.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)


def test_it_serves_every_run_with_the_same_recommender(
    planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits
) -> None:
    settings = {name: getattr(config, name) for name in RecommenderConfig.model_fields}
    first = train_reference(planted.data, FitConfig(**settings, sparsity=(0.5,), start="fresh"), 0, Storage(tmp_path))
    second = train_reference(planted.data, FitConfig(**settings, sparsity=(0.7,), start="fresh"), 0, Storage(tmp_path))
    assert len(fits) == 1
    assert_same(first, second)


@pytest.mark.parametrize("change", ["data", "split", "seed", "training", "max_size"])
def test_a_folder_with_another_reference_is_refused(
    planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits, change: str
) -> None:
    train_reference(planted.data, config, 0, Storage(tmp_path))
    arguments: dict[str, Any] = {"data": planted.data, "config": config, "seed": 0}
    if change == "data":
        arguments["data"] = make_planted(1, n_users=120, n_items=80, interactions_per_user=24).data
    elif change == "split":
        arguments["data"] = make_planted(0, n_users=120, n_items=80, interactions_per_user=24, split_seed=1).data
    elif change == "seed":
        arguments["seed"] = 1
    elif change == "training":
        arguments["config"] = config.model_copy(
            update={"training": config.training.model_copy(update={"learning_rate": 0.04})}
        )
    else:
        arguments["config"] = config.model_copy(update={"max_size": 8})
    with pytest.raises(RunDirectoryError) as caught:
        train_reference(**arguments, folder=Storage(tmp_path))
    assert "holds the reference of other data, backbone settings or seed" in str(caught.value)
    assert "Choose another folder or delete this one." in str(caught.value)
    assert len(fits) == 1


def test_an_interrupted_training_goes_on(planted: Planted, config: RecommenderConfig, tmp_path: Path) -> None:
    undisturbed = train_reference(planted.data, config, 0, Storage(tmp_path / "undisturbed"))

    def interrupt(record: EpochRecord) -> None:
        if record.epoch == 5:
            raise KeyboardInterrupt

    folder, epochs = Storage(tmp_path / "interrupted"), []
    with pytest.raises(KeyboardInterrupt):
        train_reference(planted.data, config, 0, folder, interrupt)
    resumed = train_reference(planted.data, config, 0, folder, lambda record: epochs.append(record.epoch))
    assert epochs[0] == 5  # the checkpoint is of epoch 4
    assert_same(resumed, undisturbed)
    assert undisturbed.epochs > 0
