"""Propagation from one side's rows: what the whole graph gives, at half its products."""

import numpy as np
import pytest
import torch

from ciess.config.models import LightGCNConfig
from ciess.data import Pairs
from ciess.data.planted import Planted
from ciess.models.graph import Graph
from ciess.models.lightgcn import LightGCN
from ciess.models.one_sided import OneSided


@pytest.mark.parametrize("layers", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("side", ["users", "items"])
def test_it_is_the_whole_graphs_average_of_rows_of_which_one_side_is_zero(planted: Planted, side, layers: int) -> None:
    data = planted.data
    graph = Graph(data.train, data.n_users, data.n_items)
    one = OneSided(graph, data.n_users, side)
    drawn = torch.randn(data.n, 5, generator=torch.Generator().manual_seed(0))
    kept = torch.zeros(data.n, 5)
    kept[one.rows] = drawn[one.rows]
    assert torch.equal(one.forward(drawn[one.rows], layers), graph.average(kept, layers))
    assert torch.equal(one.backward(drawn, layers), graph.average(drawn, layers)[one.rows])


def test_rows_without_an_edge_keep_their_own_share() -> None:
    pairs = Pairs(np.array([0], np.int32), np.array([1], np.int32))
    one = OneSided(Graph(pairs, 2, 3), 2, "items")
    x = torch.tensor([[1.0], [2.0], [4.0]])
    # The edge has weight 1: item 1 lends user 0 two of four layers.
    assert one.forward(x, 3).flatten().tolist() == [1.0, 0.0, 0.25, 1.0, 1.0]


@pytest.mark.parametrize("side", ["users", "items"])
def test_a_lightgcn_of_one_sides_rows_has_the_vectors_and_gradients_of_the_whole_graph(planted: Planted, side) -> None:
    data = planted.data
    graph = Graph(data.train, data.n_users, data.n_items)
    rows = OneSided(graph, data.n_users, side).rows
    drawn = torch.randn(data.n, 40, generator=torch.Generator().manual_seed(0))
    kept = torch.zeros_like(drawn)
    kept[rows] = drawn[rows]
    found = []
    for stored in (None, side):
        backbone = LightGCN(LightGCNConfig(), data.n_users, data.n_items, 40)
        backbone.stored_side = stored
        table = kept.clone().requires_grad_()
        encoded = backbone.encode(table, graph)
        (encoded.square() * torch.arange(40)).sum().backward()
        assert table.grad is not None
        found.append((encoded.detach(), table.grad[rows]))
    (whole, gradient), (half, of_half) = found
    assert torch.equal(whole, half)
    assert torch.equal(gradient, of_half)
