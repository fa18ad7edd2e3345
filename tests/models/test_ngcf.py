import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.models import Backbone
from ciess.models.graph import Graph
from ciess.training.loop import build


def fresh(data: Interactions, small_config, **model: object) -> tuple[Backbone, Tensor, Graph]:
    backbone, table = build(data, small_config("ngcf", model={"message_dropout": 0.0} | model), seed=0)
    backbone.noise = torch.Generator().manual_seed(0)
    return backbone, table[:, 0], Graph(data.train, data.n_users, data.n_items, backbone.normalisation)


@pytest.mark.parametrize("adjacency", ["row", "symmetric"])
def test_joint_activation_is_one_leaky_relu_over_the_sum(planted: Planted, small_config, adjacency: str) -> None:
    backbone, table, graph = fresh(planted.data, small_config, layers=1, activation="joint", adjacency=adjacency)
    matrix = graph.matrix.to_dense()
    gathered = matrix @ table
    total = gathered @ backbone.neighbour_weight[0] + backbone.neighbour_bias[0]
    total = total + (table * gathered) @ backbone.interaction_weight[0] + backbone.interaction_bias[0]
    vectors = functional.leaky_relu(total, 0.2)
    expected = torch.cat([table, vectors / vectors.norm(dim=1, keepdim=True)], 1)
    torch.testing.assert_close(backbone.encode(table, graph), expected, rtol=1e-4, atol=1e-6)


def test_the_adjacency_is_the_configured_one(tiny: Interactions, small_config) -> None:
    lonely = tiny.n_users + 6
    row, table, graph = fresh(tiny, small_config, adjacency="row")
    assert graph.multiply(table)[lonely].equal(table[lonely])
    symmetric, table, graph = fresh(tiny, small_config, adjacency="symmetric")
    assert graph.multiply(table)[lonely].eq(0).all()
    assert (row.normalisation, symmetric.normalisation) == ("row", "symmetric")


def test_vectors_are_the_table_and_a_unit_vector_a_layer(planted: Planted, small_config) -> None:
    backbone, table, graph = fresh(planted.data, small_config, layers=2)
    encoded = backbone.encode(table, graph)
    assert encoded.shape == (planted.data.n, 16 + 2 * 12)
    assert encoded[:, :16].equal(table)
    for layer in (encoded[:, 16:28], encoded[:, 28:]):
        torch.testing.assert_close(layer.norm(dim=1), torch.ones(planted.data.n))


def test_message_dropout_zeroes_its_share_of_every_layer_in_training_only(planted: Planted, small_config) -> None:
    backbone, table, graph = fresh(planted.data, small_config, message_dropout=0.3)
    backbone.train()
    dropped = backbone.encode(table, graph)[:, 16:]
    # 3 layers x 200 rows x 12 columns: five standard deviations of the share are 0.027.
    assert abs(float(dropped.eq(0).float().mean()) - 0.3) < 0.027
    backbone.eval()
    assert backbone.encode(table, graph)[:, 16:].ne(0).all()


def test_message_dropout_scales_what_stays(planted: Planted, small_config) -> None:
    backbone, table, graph = fresh(planted.data, small_config, layers=2, message_dropout=0.5)
    plain = backbone.eval().encode(table, graph)[:, 16:28]
    backbone.train()
    dropped = backbone.encode(table, graph)[:, 16:28]
    kept = dropped.ne(0)
    # Scaling is undone by the normalisation of a row, so what stays is the row's kept part made a unit vector.
    expected = functional.normalize(plain * kept)
    torch.testing.assert_close(dropped, expected, rtol=1e-4, atol=1e-6)
    # The next layer sees the scale: its mean over many draws is near the layer without dropout.
    with torch.no_grad():
        inner = [backbone.encode(table, graph)[:, 28:] for _ in range(60)]
        exact = backbone.eval().encode(table, graph)[:, 28:]
    cosine = functional.cosine_similarity(torch.stack(inner).mean(0), exact)
    assert float(cosine.mean()) > 0.95


def test_node_dropout_drops_edges_in_training_only(planted: Planted, small_config) -> None:
    backbone, table, graph = fresh(planted.data, small_config, layers=1, node_dropout=0.4)
    backbone.train()
    assert backbone.noise is not None
    dropped = backbone.encode(table, graph)
    backbone.eval()
    expected = backbone.encode(table, graph.dropped(0.4, torch.Generator().manual_seed(0)))
    assert dropped.equal(expected)
    assert not dropped.equal(backbone.encode(table, graph))


def test_equal_noise_gives_equal_dropout(planted: Planted, small_config) -> None:
    backbone, table, graph = fresh(planted.data, small_config, message_dropout=0.3, node_dropout=0.3)
    backbone.train()

    def encoded(seed: int) -> Tensor:
        assert backbone.noise is not None
        backbone.noise.manual_seed(seed)
        return backbone.encode(table, graph)

    assert encoded(1).equal(encoded(1))
    assert not encoded(1).equal(encoded(2))


def test_weights_and_biases_are_xavier_uniform(planted: Planted, small_config) -> None:
    backbone, _ = build(planted.data, small_config("ngcf", model={"width": 64}, max_size=128), seed=0)
    shapes = {name: tuple(value.shape) for name, value in backbone.named_parameters()}
    for kind in ("neighbour", "interaction"):
        assert [shapes[f"{kind}_weight.{layer}"] for layer in range(3)] == [(128, 64), (64, 64), (64, 64)]
        assert [shapes[f"{kind}_bias.{layer}"] for layer in range(3)] == [(1, 64)] * 3
    for name, value in backbone.named_parameters():
        bound = (6 / sum(shapes[name])) ** 0.5
        assert 0.9 * bound < float(value.detach().abs().max()) <= bound


def test_parameters_of_three_layers_of_128_are_those_of_the_published_shape(planted: Planted, small_config) -> None:
    backbone, _ = build(planted.data, small_config("ngcf", model={"width": 128}, max_size=128), seed=0)
    assert sum(value.numel() for value in backbone.parameters()) == 99_072
