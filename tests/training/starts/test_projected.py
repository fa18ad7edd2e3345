"""Starts from a reference: turning its axes changes no score, and the projection is the nearest table of its mask."""

import numpy as np
import pytest
import torch

from ciess.data import Interactions
from ciess.errors import InputError
from ciess.masks.mask import PrefixMask
from ciess.masks.sizes import full, mixed
from ciess.training.fit import fit
from ciess.training.loop import FitRequest
from ciess.training.prepared import prepare
from ciess.training.starts.projected import principal_axes
from ciess.training.starts.start import Start
from ciess.training.starts.weights import initial_weights


@pytest.fixture
def reference(data: Interactions, small_config):
    """reference(backbone): config, trained scores and weights of a full table."""

    def make(backbone: str):
        model = {"message_dropout": 0.0} if backbone == "ngcf" else {}
        config = small_config(backbone, model=model, learning_rate=0.02)
        result = fit(data, FitRequest(config, full(data.n, 16), 0, epochs=3))
        weights = {name: torch.from_numpy(value) for name, value in result.weights.items()}
        weights["table"] = torch.from_numpy(result.table).reshape(data.n, -1, 16)
        return config, result.recommender.score_users(torch.arange(data.n_users)), weights

    return make


@pytest.mark.parametrize("backbone", ["lightgcn", "items", "ncf", "ngcf"])
def test_a_cut_at_full_size_has_the_scores_of_the_reference(
    data: Interactions, begin, reference, backbone: str
) -> None:
    config, scores, weights = reference(backbone)
    found = begin(config, full(data.n, 16), Start("cut"), weights)
    ours = found.recommender.score_users(torch.arange(data.n_users))
    torch.testing.assert_close(ours, scores, rtol=1e-4, atol=1e-5 * float(scores.abs().max()))


@pytest.mark.parametrize("backbone", ["lightgcn", "ncf"])
def test_a_projection_at_full_size_has_the_scores_of_the_reference(
    data: Interactions, begin, reference, backbone: str
) -> None:
    config, scores, weights = reference(backbone)
    found = begin(config, full(data.n, 16), Start("projected"), weights)
    ours = found.recommender.score_users(torch.arange(data.n_users))
    torch.testing.assert_close(ours, scores, rtol=1e-3, atol=1e-3 * float(scores.abs().max()))


def test_the_first_axes_hold_most(data: Interactions) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(data.n, 2, generator=generator) @ torch.randn(2, 8, generator=generator)
    vectors = hidden + 0.01 * torch.randn(data.n, 8, generator=generator)
    axes = principal_axes(vectors, data.n_users)
    torch.testing.assert_close(axes.T @ axes, torch.eye(8), rtol=0, atol=1e-5)
    energy = (vectors @ axes).square().sum(0)
    assert energy[:2].sum() > 0.999 * energy.sum()


@pytest.mark.parametrize("item_weight", [1.0, 16.0])
def test_a_projection_is_nearer_to_the_reference_than_its_cut(
    data: Interactions, begin, reference, item_weight: float
) -> None:
    """What counts is the distance of the vectors, items' rows weighed."""
    config, _, weights = reference("lightgcn")
    mask = mixed(data.n, 16, 0.6, seed=0)
    prepared = prepare(data, torch.device("cpu"))
    graph, layers = prepared.graph("symmetric"), config.model.layers
    table = weights["table"][:, 0]
    target = graph.average(table, layers)
    axes = principal_axes(target, data.n_users)
    rows = torch.ones(data.n, 1)
    rows[data.n_users :] = item_weight
    distances = {}
    for name in ("cut", "projected"):
        start = Start(name, item_weight=item_weight if name == "projected" else 1.0)
        found = initial_weights(data, prepared, config, mask, start, 0, weights)["table"][:, 0]
        kept = found * torch.from_numpy(mask.dense())
        distances[name] = float((rows * (graph.average(kept, layers) - target @ axes).square()).sum())
    assert distances["projected"] < 0.9 * distances["cut"]


@pytest.mark.parametrize("name", ["cut", "projected"])
def test_without_a_reference_it_is_refused(data: Interactions, begin, small_config, name: str) -> None:
    with pytest.raises(InputError, match=f"start {name} begins from a reference, but none was given"):
        begin(small_config("lightgcn"), full(data.n, 16), Start(name))


def test_a_start_that_the_backbone_does_not_allow_is_refused(data: Interactions, begin, small_config) -> None:
    with pytest.raises(InputError, match=r"start projected is not for backbone ngcf.*Expected one of fresh, cut"):
        begin(small_config("ngcf"), full(data.n, 16), Start("projected"), {"table": torch.zeros(data.n, 1, 16)})


def test_a_mask_that_keeps_nothing_is_no_error(data: Interactions, reference) -> None:
    config, _, weights = reference("lightgcn")
    nothing = PrefixMask(np.zeros(data.n, np.int16), 16)
    prepared = prepare(data, torch.device("cpu"))
    found = initial_weights(data, prepared, config, nothing, Start("projected"), 0, weights)
    assert found["table"].eq(0).all()
