import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.data.planted import planted as make_planted
from ciess.errors import RunDirectoryError
from ciess.masks.sizes import equal, full, mixed
from ciess.models import BACKBONES
from ciess.storage.storage import Storage
from ciess.training.fit import fit
from ciess.training.loop import FitRequest

Config = Callable[..., RecommenderConfig]
every_backbone = pytest.mark.parametrize("backbone", BACKBONES)


class Stopped(Exception):
    """Stands for whatever ends a process."""


def stop_after(epoch: int):
    def on_epoch(record) -> None:
        if record.epoch == epoch:
            raise Stopped

    return on_epoch


class TestResume:
    """A training that is stopped and started again ends with the bits of an undisturbed one."""

    @pytest.fixture
    def config(self, small_config: Config) -> Config:
        def make(backbone: str) -> RecommenderConfig:
            model = {"node_dropout": 0.2} if backbone == "ngcf" else {}
            settings = {"evaluate_every": 3, "patience": 2, "max_epochs": 14, "learning_rate_decay": 0.9}
            return small_config(backbone, model=model, learning_rate=0.05, **settings)

        return make

    @every_backbone
    @pytest.mark.parametrize("epochs", [None, 11])
    def test_a_stopped_training_goes_on_to_equal_bits(
        self,
        backbone: str,
        epochs: int | None,
        data: Interactions,
        config,
        tmp_path: Path,
        assert_same: Callable[..., None],
    ) -> None:
        request = FitRequest(config(backbone), mixed(data.n, 16, 0.5, seed=0), seed=1, epochs=epochs)
        undisturbed = fit(data, request)
        progress, seen = Storage(tmp_path / "progress"), []
        for epoch in (2, 7, 9):  # before the first checkpoint, between two, and right after one
            with pytest.raises(Stopped):
                fit(data, dataclasses.replace(request, progress=progress, on_epoch=stop_after(epoch)))
        resumed = fit(
            data, dataclasses.replace(request, progress=progress, on_epoch=lambda record: seen.append(record.epoch))
        )
        assert seen[0] == 10
        assert_same(resumed, undisturbed)

    @every_backbone
    def test_the_best_weights_survive_a_stop(
        self, backbone: str, data: Interactions, config, tmp_path: Path, assert_same: Callable[..., None]
    ) -> None:
        def forget(step: int, module: nn.Module) -> None:
            if step >= 9:  # three steps an epoch: from the fourth on
                with torch.no_grad():
                    module.weight.zero_()

        request = FitRequest(config(backbone), full(data.n, 16), seed=1, after_step=forget)
        undisturbed = fit(data, request)
        assert (undisturbed.best_epoch, undisturbed.epochs) == (3, 9)
        request = dataclasses.replace(request, progress=Storage(tmp_path))
        with pytest.raises(Stopped):
            fit(data, dataclasses.replace(request, on_epoch=stop_after(6)))
        assert_same(fit(data, request), undisturbed)

    def test_a_finished_training_trains_no_more(
        self, data: Interactions, config, tmp_path: Path, assert_same: Callable[..., None]
    ) -> None:
        request = FitRequest(config("lightgcn"), full(data.n, 16), seed=1, progress=Storage(tmp_path))
        first = fit(data, request)
        epochs: list[object] = []
        assert_same(fit(data, dataclasses.replace(request, on_epoch=epochs.append)), first)
        assert epochs == []

    @pytest.mark.parametrize("what", ["seed", "mask", "config", "data", "initial", "epochs"])
    def test_the_checkpoint_of_another_training_is_refused(
        self, what: str, data: Interactions, config, small_config, tmp_path: Path
    ) -> None:
        request = FitRequest(config("lightgcn"), full(data.n, 16), seed=1, progress=Storage(tmp_path / "progress"))
        with pytest.raises(Stopped):
            fit(data, dataclasses.replace(request, on_epoch=stop_after(4)))
        changes = {
            "seed": {"seed": 2},
            "mask": {"mask": equal(data.n, 16, 0.5)},
            "config": {"config": small_config()},
            "data": {},
            "initial": {"initial": {"table": torch.zeros(data.n, 1, 16)}},
            "epochs": {"epochs": 14},
        }
        if what == "data":
            data = make_planted(1, n_users=120, n_items=80, interactions_per_user=24).data
        with pytest.raises(RunDirectoryError, match=r"is the checkpoint of another run .* --overwrite"):
            fit(data, dataclasses.replace(request, **changes[what]))

    def test_another_number_of_threads_goes_on(self, data: Interactions, config, tmp_path: Path) -> None:
        request = FitRequest(config("lightgcn"), full(data.n, 16), seed=1, progress=Storage(tmp_path))
        with pytest.raises(Stopped):
            fit(data, dataclasses.replace(request, on_epoch=stop_after(4)))
        threads = request.config.model_copy(update={"threads": 2})
        assert fit(data, dataclasses.replace(request, config=threads)).epochs > 4


class TestEmbedding:
    """What is called after every step."""

    def test_steps_are_numbered_on_after_a_stop(self, data: Interactions, small_config: Config, tmp_path: Path) -> None:
        steps: list[int] = []
        request = FitRequest(
            small_config(evaluate_every=2),
            full(data.n, 16),
            seed=0,
            epochs=4,
            after_step=lambda step, _: steps.append(step),
            progress=Storage(tmp_path),
        )
        with pytest.raises(Stopped):
            fit(data, dataclasses.replace(request, on_epoch=stop_after(3)))
        assert steps == list(range(9))
        steps.clear()
        fit(data, request)
        assert steps == list(range(6, 12))
