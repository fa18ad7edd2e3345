"""What every backbone promises, against models written out here on dense matrices in double precision."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import FitError
from ciess.masks.mask import Mask, PrefixMask, SparseMask
from ciess.masks.sizes import equal, full, mixed
from ciess.models import BACKBONES, Backbone
from ciess.models.embedding import MaskedEmbedding
from ciess.models.graph import Graph
from ciess.models.history import build_graph
from ciess.training.fit import fit
from ciess.training.loop import FitRequest, build
from ciess.training.losses import bpr_loss
from ciess.training.sampling import Sampler

MAX_SIZE = 16
KINDS = ["prefix", "sparse"]
Weights = Mapping[str, Tensor]
Reference = Callable[[RecommenderConfig, Interactions, Tensor, Weights], tuple[Tensor, Tensor]]
pytestmark = pytest.mark.parametrize("name", BACKBONES)


def adjacency(data: Interactions) -> Tensor:
    matrix = torch.zeros(data.n, data.n, dtype=torch.float64)
    users, items = torch.from_numpy(data.train.users), torch.from_numpy(data.train.items + data.n_users)
    matrix[users, items] = matrix[items, users] = 1
    return matrix


def lightgcn(config: RecommenderConfig, data: Interactions, table: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    matrix = adjacency(data)
    scale = matrix.sum(1).clamp(min=1).rsqrt()
    matrix = scale[:, None] * matrix * scale
    layers = [table[:, 0]]
    for _ in range(config.model.layers):
        layers.append(matrix @ layers[-1])
    vectors = sum(layers) / len(layers)
    return vectors[: data.n_users] @ vectors[data.n_users :].T, table[:, 0]


def ngcf(config: RecommenderConfig, data: Interactions, table: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    matrix = adjacency(data) + torch.eye(data.n, dtype=torch.float64)
    matrix = matrix / matrix.sum(1, keepdim=True)
    vectors, outputs = table[:, 0], [table[:, 0]]
    for layer in range(config.model.layers):
        gathered = matrix @ vectors
        neighbours = gathered @ weights[f"neighbour_weight.{layer}"] + weights[f"neighbour_bias.{layer}"]
        interaction = (vectors * gathered) @ weights[f"interaction_weight.{layer}"]
        interaction = interaction + weights[f"interaction_bias.{layer}"]
        vectors = functional.leaky_relu(neighbours, 0.2) + functional.leaky_relu(interaction, 0.2)
        outputs.append(vectors / vectors.norm(dim=1, keepdim=True))
    final = torch.cat(outputs, 1)
    return final[: data.n_users] @ final[data.n_users :].T, final


def ncf(config: RecommenderConfig, data: Interactions, table: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    users = table[: data.n_users, None].expand(-1, data.n_items, -1, -1)
    items = table[None, data.n_users :].expand(data.n_users, -1, -1, -1)
    product = users[:, :, 0] * items[:, :, 0]
    values = torch.cat([users[:, :, 1], items[:, :, 1]], -1)
    values = torch.relu(values @ torch.cat([weights["user_half"], weights["item_half"]]) + weights["first_bias"])
    for layer in range(len(config.model.hidden) - 1):
        values = torch.relu(values @ weights[f"tower.{layer}.weight"].T + weights[f"tower.{layer}.bias"])
    output = torch.cat([weights["gmf_output"], weights["tower_output"]])
    return torch.cat([product, values], -1) @ output, table.flatten(1)


def items(config: RecommenderConfig, data: Interactions, table: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    pairs = adjacency(data)[: data.n_users, data.n_users :]
    rows = table[data.n_users :, 0]
    users = pairs.sum(1, keepdim=True).rsqrt() * (pairs @ (rows * weights["history_weight"][:, None]))
    return users @ (rows * weights["item_weight"][:, None]).T, table[:, 0]


REFERENCES: dict[str, Reference] = {"lightgcn": lightgcn, "ngcf": ngcf, "ncf": ncf, "items": items}


@pytest.fixture
def config(name: str, small_config) -> RecommenderConfig:
    """Of a model without dropout, whose training is then a plain loop."""
    model = {"message_dropout": 0.0} if name == "ngcf" else {}
    return small_config(name, model=model, max_size=MAX_SIZE, batch_size=450, decay=0.01)


@pytest.fixture
def data(planted: Planted) -> Interactions:
    return planted.data


@pytest.fixture(params=KINDS)
def mask(request: pytest.FixtureRequest, name: str, data: Interactions) -> Mask:
    """A mask that drops some columns for every row and leaves one row empty."""
    if request.param == "prefix":
        sizes = mixed(data.n, MAX_SIZE, 0.6, seed=0).sizes.clip(max=13)
        sizes[:4] = (13, 1, 2, 0)
        return PrefixMask(sizes, MAX_SIZE)
    tables = BACKBONES[name].tables
    dense = np.random.default_rng(0).random((data.n, tables, MAX_SIZE)) < 0.4
    dense[:, :, 13:] = dense[3] = False
    return SparseMask.from_dense(dense.reshape(data.n, -1), MAX_SIZE)


def graph_of(backbone: Backbone, data: Interactions) -> Graph | None:
    if backbone.normalisation is None:
        return None
    return build_graph(data.train, data.n_users, data.n_items, backbone.normalisation)


def dense_mask(mask: Mask, tables: int) -> Tensor:
    """0 or 1 for every entry of the full tables: [n, tables, MAX_SIZE]."""
    kept = torch.from_numpy(mask.dense()).reshape(len(mask.dense()), -1, MAX_SIZE)
    return kept.expand(-1, tables, -1).double()


def weights_of(backbone: Backbone) -> dict[str, Tensor]:
    return {name: value.detach().double() for name, value in backbone.named_parameters()}


def all_scores(backbone: Backbone, table: Tensor, data: Interactions) -> Tensor:
    with torch.no_grad():
        return backbone.score_all(backbone.encode(table, graph_of(backbone, data)), torch.arange(data.n_users))


def batch_of(data: Interactions) -> tuple[Tensor, Tensor, Tensor]:
    triples = Sampler(data.train, data.n_users, data.n_items, torch.device("cpu")).epoch(0, 1, 300)
    return triples.users[0], triples.positives[0], triples.negatives[0]


def test_every_backbone_has_a_reference(name: str) -> None:
    assert name in REFERENCES


def test_eq1_eq3_scores_at_full_size_are_those_of_the_unmasked_model(
    name: str, config: RecommenderConfig, data: Interactions
) -> None:
    backbone, table = build(data, config, seed=0)
    backbone.eval()
    masked = MaskedEmbedding(table, full(data.n, MAX_SIZE), backbone.tables)()
    expected, _ = REFERENCES[name](config, data, table.double(), weights_of(backbone))
    torch.testing.assert_close(all_scores(backbone, masked, data).double(), expected, rtol=1e-4, atol=1e-6)


def test_eq1_eq3_scores_under_a_mask_are_those_of_the_full_table_with_zeros(
    name: str, config: RecommenderConfig, data: Interactions, mask: Mask
) -> None:
    backbone, table = build(data, config, seed=0)
    backbone.eval()
    narrow = MaskedEmbedding(table, mask, backbone.tables)()
    assert narrow.shape[1] == backbone.tables * 13
    wide = table * dense_mask(mask, backbone.tables).float()
    expected = all_scores(backbone, wide.flatten(1), data)
    torch.testing.assert_close(all_scores(backbone, narrow, data), expected, rtol=1e-5, atol=1e-7)
    exact, _ = REFERENCES[name](config, data, wide.double(), weights_of(backbone))
    torch.testing.assert_close(expected.double(), exact, rtol=1e-4, atol=1e-6)


def test_eq2_gradient_outside_the_mask_is_exactly_zero(
    name: str, config: RecommenderConfig, data: Interactions, mask: Mask
) -> None:
    backbone, table = build(data, config, seed=0)
    embedding = MaskedEmbedding(table, mask, backbone.tables)
    masked = embedding()
    encoded = backbone.encode(masked, graph_of(backbone, data))
    bpr_loss(backbone, masked, encoded, *batch_of(data), decay=0.1).backward()
    gradient = embedding.weight.grad.reshape(data.n, backbone.tables, -1)
    inside = dense_mask(mask, backbone.tables)[:, :, : mask.width].bool()
    assert gradient[~inside].eq(0).all()
    trained = torch.zeros(data.n, dtype=torch.bool)
    # By the penalty alone, where users' rows are not what scores stand on.
    trained[batch_of(data)[0]] = True
    assert gradient[inside & trained[:, None, None]].ne(0).all()


def test_eq2_training_leaves_zeros_outside_the_mask(
    name: str, config: RecommenderConfig, data: Interactions, mask: Mask
) -> None:
    result = fit(data, FitRequest(config, mask, seed=0, epochs=3, evaluate=False))
    table = result.table.reshape(data.n, BACKBONES[name].tables, -1)
    inside = dense_mask(mask, BACKBONES[name].tables)[:, :, : mask.width].bool().numpy()
    assert (table[~inside] == 0).all()
    assert (table[inside] != 0).all()


def test_eq4_margin_is_the_difference_of_two_scores(name: str, config: RecommenderConfig, data: Interactions) -> None:
    backbone, table = build(data, config, seed=0)
    backbone.eval()
    users, positives, negatives = batch_of(data)
    scores = all_scores(backbone, table.flatten(1), data)
    margin = backbone.margin(
        backbone.encode(table.flatten(1), graph_of(backbone, data)), users, positives, negatives
    ).detach()
    expected = scores[users, positives] - scores[users, negatives]
    torch.testing.assert_close(margin, expected, rtol=1e-4, atol=1e-6)


def test_eq4_three_optimiser_steps_equal_a_hand_written_loop(
    name: str, config: RecommenderConfig, data: Interactions, mask: Mask
) -> None:
    seed, training = 5, config.training
    result = fit(data, FitRequest(config, mask, seed, epochs=1, evaluate=False))

    backbone, initial = build(data, config, seed)
    kept = dense_mask(mask, backbone.tables)
    table = initial.double().requires_grad_()
    learned = {key for key, value in backbone.named_parameters() if value.requires_grad}
    weights = {key: value.requires_grad_(key in learned) for key, value in weights_of(backbone).items()}
    optimizer = torch.optim.Adam([table, *(weights[key] for key in learned)], lr=training.learning_rate)
    sampler = Sampler(data.train, data.n_users, data.n_items, torch.device("cpu"))
    triples = sampler.epoch(seed, 1, training.batch_size, training.sampling)
    losses = []
    for users, positives, negatives in zip(triples.users, triples.positives, triples.negatives, strict=True):
        optimizer.zero_grad()
        scores, rows = REFERENCES[name](config, data, table * kept, weights)
        loss = 0.0
        for user, positive, negative in zip(users.tolist(), positives.tolist(), negatives.tolist(), strict=True):
            loss = loss - functional.logsigmoid(scores[user, positive] - scores[user, negative])
            looked_up = rows[[user, data.n_users + positive, data.n_users + negative]]
            loss = loss + training.decay / 2 * looked_up.square().sum()
        loss = loss / len(users)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    assert len(losses) == 3
    assert result.history[0].loss == pytest.approx(sum(losses) / 3, rel=1e-5)
    expected = (table * kept)[:, :, : mask.width].detach().flatten(1).float()
    torch.testing.assert_close(torch.from_numpy(result.table), expected, rtol=1e-4, atol=2e-6)
    assert set(result.weights) == set(weights)
    for key, value in weights.items():
        # Adam makes full steps of the few gradients that are near the noise of float32, so errors are measured
        # against the way that a whole parameter has gone.
        start = backbone.get_parameter(key).detach().double()
        error = torch.from_numpy(result.weights[key]).double() - value.detach()
        assert float(error.norm()) <= 5e-3 * float((value.detach() - start).norm()), key


def test_eq4_a_row_looked_up_twice_is_penalised_twice(name: str, config: RecommenderConfig, data: Interactions) -> None:
    backbone, table = build(data, config, seed=0)
    backbone.eval()
    flat = table.flatten(1)
    encoded = backbone.encode(flat, graph_of(backbone, data))
    users, positives, negatives = torch.tensor([4, 4, 9]), torch.tensor([1, 2, 1]), torch.tensor([7, 7, 7])
    with torch.no_grad():
        plain, penalised = (
            bpr_loss(backbone, flat, encoded, users, positives, negatives, decay) for decay in (0.0, 0.6)
        )
    rows = backbone.regularised(flat, encoded).detach().square().sum(1)
    offset = data.n_users
    looked_up = 2 * rows[4] + rows[9] + 2 * rows[offset + 1] + rows[offset + 2] + 3 * rows[offset + 7]
    torch.testing.assert_close(penalised - plain, 0.3 * looked_up / 3, rtol=1e-4, atol=1e-6)


def test_evaluation_is_deterministic(name: str, data: Interactions, small_config) -> None:
    model = {"message_dropout": 0.5, "node_dropout": 0.5} if name == "ngcf" else {}
    result = fit(data, FitRequest(small_config(name, model=model), full(data.n, 16), seed=0, epochs=1))
    users = torch.arange(data.n_users)
    assert not result.recommender.backbone.training
    assert result.recommender.score_users(users).equal(result.recommender.score_users(users))
    backbone = result.recommender.backbone
    with torch.no_grad():
        again = backbone.encode(torch.from_numpy(result.table), graph_of(backbone, data))
    assert again.equal(result.recommender.encoded)


def test_the_loss_falls_on_planted_data(name: str, data: Interactions, small_config) -> None:
    config = small_config(name, learning_rate=0.02, decay=1e-3)
    history = fit(data, FitRequest(config, full(data.n, 16), seed=0, epochs=30, evaluate=False)).history
    losses = [record.loss for record in history]
    # ln 2 is the loss of a model that knows nothing.
    assert losses[-1] < 0.8 * np.log(2)
    assert losses[-1] < losses[9] < losses[0]


def test_training_beats_a_fresh_model_in_validation_quality(name: str, data: Interactions, small_config) -> None:
    config = small_config(name, learning_rate=0.02, decay=1e-3)
    fresh, trained = (fit(data, FitRequest(config, full(data.n, 16), seed=0, epochs=epochs)) for epochs in (0, 40))
    assert trained.validation.mean_quality() > 1.3 * fresh.validation.mean_quality()


def test_parameters_beside_the_table_never_depend_on_the_sizes(
    name: str, config: RecommenderConfig, data: Interactions
) -> None:
    masks = [full(data.n, MAX_SIZE), equal(data.n, MAX_SIZE, 0.9), mixed(data.n, MAX_SIZE, 0.5, seed=0)]
    first, *others = (fit(data, FitRequest(config, mask, seed=0, epochs=0)).weights for mask in masks)
    for other in others:
        assert set(other) == set(first)
        for key, value in first.items():
            np.testing.assert_array_equal(other[key], value)


def test_the_initial_table_is_drawn_at_full_size_then_sliced(
    name: str, config: RecommenderConfig, data: Interactions
) -> None:
    tables = BACKBONES[name].tables
    whole = fit(data, FitRequest(config, full(data.n, MAX_SIZE), seed=0, epochs=0)).table
    whole = whole.reshape(data.n, tables, MAX_SIZE)
    for size in (1, 5):
        mask = PrefixMask(np.full(data.n, size), MAX_SIZE)
        table = fit(data, FitRequest(config, mask, seed=0, epochs=0)).table
        np.testing.assert_array_equal(table.reshape(data.n, tables, size), whole[:, :, :size])


def test_seeds_draw_different_tables_and_weights(name: str, config: RecommenderConfig, data: Interactions) -> None:
    (first, table), (again, same), (other, another) = (build(data, config, seed) for seed in (0, 0, 1))
    assert table.equal(same)
    assert not table.equal(another)
    for key, value in first.named_parameters():
        assert value.equal(again.get_parameter(key))
        drawn = value.requires_grad and bool(value.ne(0).any())
        assert value.equal(other.get_parameter(key)) != drawn


def test_a_mask_that_keeps_nothing_leaves_the_other_parameters_to_train(
    name: str, config: RecommenderConfig, data: Interactions
) -> None:
    mask = PrefixMask(np.zeros(data.n, dtype=np.int16), MAX_SIZE)
    request = FitRequest(config, mask, seed=0, epochs=1)
    if name in ("lightgcn", "items"):
        with pytest.raises(FitError, match=rf"mask keeps no entry .* {name} has no other parameter to train\. Give"):
            fit(data, request)
        return
    result = fit(data, request)
    assert result.table.shape == (data.n, 0)
    assert np.isfinite(result.history[0].loss)
