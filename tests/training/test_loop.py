import dataclasses
import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import InputError
from ciess.masks.mask import Mask, PrefixMask
from ciess.masks.sizes import equal, full, mixed
from ciess.models import BACKBONES
from ciess.models.embedding import MaskedEmbedding
from ciess.training.fit import fit
from ciess.training.loop import FitRequest, Training, build
from ciess.training.prepared import prepare

Config = Callable[..., RecommenderConfig]
every_backbone = pytest.mark.parametrize("backbone", BACKBONES)


class TestInitial:
    @every_backbone
    def test_initial_weights_are_where_training_starts(
        self, backbone: str, data: Interactions, small_config: Config
    ) -> None:
        config, mask = small_config(backbone), equal(data.n, 16, 0.5)
        other, table = build(data, config, seed=9)
        initial = {"table": table} | {name: value.detach() for name, value in other.named_parameters()}
        start = fit(data, FitRequest(config, mask, seed=0, epochs=0, initial=initial))
        tables = BACKBONES[backbone].tables
        np.testing.assert_array_equal(start.table, table[:, :, :8].reshape(data.n, tables * 8).numpy())
        for name, value in other.named_parameters():
            np.testing.assert_array_equal(start.weights[name], value.detach().numpy())

    @every_backbone
    def test_initial_weights_are_not_changed_by_training(
        self, backbone: str, data: Interactions, small_config: Config
    ) -> None:
        backbone_module, table = build(data, small_config(backbone), seed=9)
        initial = {"table": table} | {name: value.detach() for name, value in backbone_module.named_parameters()}
        before = {name: value.clone() for name, value in initial.items()}
        fit(data, FitRequest(small_config(backbone), full(data.n, 16), seed=0, epochs=1, initial=initial))
        for name, value in before.items():
            assert initial[name].equal(value)

    @every_backbone
    def test_the_weights_of_a_seed_given_as_initial_make_the_same_training(
        self, backbone: str, data: Interactions, small_config: Config, assert_same: Callable[..., None]
    ) -> None:
        config = small_config(backbone)
        module, table = build(data, config, seed=3)
        initial = {"table": table} | {name: value.detach() for name, value in module.named_parameters()}
        request = FitRequest(config, full(data.n, 16), seed=3, epochs=1)
        assert_same(fit(data, dataclasses.replace(request, initial=initial)), fit(data, request))


def test_initial_weights_of_unknown_names_are_refused(planted: Planted, small_config: Config) -> None:
    with pytest.raises(
        InputError, match=r"initial weights for tower, but lightgcn has none of these names. Give `table`"
    ):
        build(planted.data, small_config("lightgcn"), 0, {"tower": torch.zeros(3)})


class Halved(nn.Module):
    """An embedding that a method might put in the place of the masked one: half of what it has learned."""

    def __init__(self, initial: Tensor, mask: Mask, tables: int) -> None:
        super().__init__()
        self.inner = MaskedEmbedding(initial * 2, mask, tables)

    def forward(self) -> Tensor:
        return self.inner() / 2


class TestEmbedding:
    @every_backbone
    def test_another_embedding_takes_the_place_of_the_masked_one(
        self, backbone: str, data: Interactions, small_config: Config
    ) -> None:
        mask = mixed(data.n, 16, 0.5, seed=0)
        request = FitRequest(small_config(backbone, learning_rate=0.02), mask, seed=0, epochs=2)
        halved = fit(data, dataclasses.replace(request, embedding=Halved)).table
        plain = fit(data, request).table
        start = fit(data, dataclasses.replace(request, epochs=0)).table
        # Adam's steps do not see the scale of gradients, so half the table moves half as far.
        moved = np.abs(halved - start).sum() / np.abs(plain - start).sum()
        assert moved == pytest.approx(0.5, rel=0.1)

    @every_backbone
    def test_the_embedding_is_built_from_the_full_initial_table_and_the_mask(
        self, backbone: str, data: Interactions, small_config: Config
    ) -> None:
        mask, built = equal(data.n, 16, 0.5), []

        def embedding(initial: Tensor, mask: Mask, tables: int) -> nn.Module:
            built.append((initial.clone(), mask, tables))
            return MaskedEmbedding(initial, mask, tables)

        fit(data, FitRequest(small_config(backbone), mask, seed=4, epochs=1, embedding=embedding))
        [(initial, given, tables)] = built
        assert initial.equal(build(data, small_config(backbone), seed=4)[1])
        assert given is mask
        assert tables == BACKBONES[backbone].tables

    def test_after_step_is_called_with_every_step_and_the_embedding(
        self, data: Interactions, small_config: Config
    ) -> None:
        calls: list[tuple[int, nn.Module]] = []
        request = FitRequest(
            small_config(batch_size=500),  # three steps an epoch
            full(data.n, 16),
            seed=0,
            epochs=3,
            embedding=Halved,
            after_step=lambda step, module: calls.append((step, module)),
        )
        fit(data, request)
        assert [step for step, _ in calls] == list(range(9))
        assert {id(module) for _, module in calls} == {id(calls[0][1])}
        assert isinstance(calls[0][1], Halved)

    def test_after_step_comes_after_the_optimiser_and_may_change_the_weights(
        self, data: Interactions, small_config: Config
    ) -> None:
        def clamp(step: int, module: nn.Module) -> None:
            with torch.no_grad():
                module.weight.clamp_(-0.05, 0.05)

        request = FitRequest(small_config(), full(data.n, 16), seed=0, epochs=2, after_step=clamp)
        assert np.abs(fit(data, request).table).max() == np.float32(0.05)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"learning_rate": 0.5}, [0.5, 0.5, 0.5, 0.5]),
        ({"learning_rate": 0.5, "learning_rate_decay": 0.5}, [0.5, 0.25, 0.125, 0.0625]),
        (
            {"learning_rate": 0.5, "learning_rate_decay": 0.5, "learning_rate_floor": 0.1},
            [0.5, 0.25, 0.125, 0.1],
        ),
    ],
)
def test_the_learning_rate_of_every_step_follows_the_schedule(
    data: Interactions, small_config: Config, monkeypatch, settings: dict[str, float], expected: list[float]
) -> None:
    rates: list[float] = []

    class Watched(torch.optim.Adam):
        def step(self, closure=None):
            rates.extend(group["lr"] for group in self.param_groups)
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    fit(data, FitRequest(small_config(**settings), full(data.n, 16), seed=0, epochs=4, evaluate=False))
    assert rates == pytest.approx([rate for rate in expected for _ in range(3)])


def test_a_fresh_model_knows_nothing(data: Interactions, small_config: Config) -> None:
    # Scores near zero make the loss of Eq. 4 ln 2.
    config = small_config("lightgcn", model={"initial_scale": 1e-4}, learning_rate=1e-6, decay=0)
    loss = fit(data, FitRequest(config, full(data.n, 16), seed=0, epochs=1)).history[0].loss
    assert loss == pytest.approx(math.log(2), rel=1e-4)


class TestFingerprint:
    """What tells the checkpoints of two trainings apart."""

    def test_it_is_the_sha256_of_a_request(self, data: Interactions, small_config: Config) -> None:
        request = FitRequest(small_config(), full(data.n, 16), seed=0)
        assert len(request.fingerprint(data)) == len(hashlib.sha256().hexdigest())
        assert request.fingerprint(data) == dataclasses.replace(request).fingerprint(data)

    def test_training_on_merged_data_is_another_training(self, data: Interactions, small_config: Config) -> None:
        request = FitRequest(small_config(), full(data.n, 16), seed=0, epochs=3)
        assert request.fingerprint(data.merged()) != request.fingerprint(data)

    def test_speed_and_reporting_do_not_count(self, data: Interactions, small_config: Config) -> None:
        request = FitRequest(small_config(), full(data.n, 16), seed=0, epochs=3)
        faster = request.config.model_copy(update={"threads": 7, "device": "cuda"})
        other = dataclasses.replace(request, config=faster, on_epoch=print)
        assert other.fingerprint(data) == request.fingerprint(data)


class TestRowsThatAreNotStored:
    def test_users_without_rows_cost_nothing_and_stand_as_zeros_in_the_table(
        self, data: Interactions, small_config: Config
    ) -> None:
        config = small_config("items")
        sizes = np.concatenate([np.zeros(data.n_users, np.int16), np.full(data.n_items, 8, np.int16)])
        request = FitRequest(config, PrefixMask(sizes, 16), seed=0, epochs=1)
        training = Training(data, request, prepare(data, torch.device("cpu")))
        assert training.embedding().shape == (data.n_items, 8)
        found = fit(data, request)
        assert found.table.shape == (data.n, 8)
        assert (found.table[: data.n_users] == 0).all() and (found.table[data.n_users :] != 0).all()
