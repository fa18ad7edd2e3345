import numpy as np
import pytest
import torch

from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.masks.sizes import full
from ciess.models.graph import Graph
from ciess.training.fit import fit
from ciess.training.loop import FitRequest, build


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_vectors_are_those_of_pyg(planted: Planted, small_config, pyg, layers: int) -> None:
    data = planted.data
    users = torch.from_numpy(data.train.users.astype(np.int64))
    items = torch.from_numpy(data.train.items.astype(np.int64)) + data.n_users
    edges = torch.stack([torch.cat([users, items]), torch.cat([items, users])])
    backbone, table = build(data, small_config("lightgcn", model={"layers": layers}, max_size=40), seed=0)
    oracle = pyg.nn.LightGCN(num_nodes=data.n, embedding_dim=40, num_layers=layers)
    with torch.no_grad():
        oracle.embedding.weight.copy_(table[:, 0])
        expected = oracle.get_embedding(edges)
        encoded = backbone.encode(table[:, 0], Graph(data.train, data.n_users, data.n_items))
    torch.testing.assert_close(encoded, expected, rtol=1e-5, atol=1e-7)


def test_columns_never_mix(planted: Planted, small_config) -> None:
    data = planted.data
    backbone, table = build(data, small_config(), seed=0)
    graph = Graph(data.train, data.n_users, data.n_items)
    whole = backbone.encode(table[:, 0], graph)
    torch.testing.assert_close(backbone.encode(table[:, 0, :5], graph), whole[:, :5])


def test_the_table_is_the_only_parameter(tiny: Interactions, small_config) -> None:
    assert fit(tiny, FitRequest(small_config(), full(tiny.n, 16), seed=0, epochs=0)).weights == {}


def test_the_initial_table_has_the_configured_scale(planted: Planted, small_config) -> None:
    _, table = build(planted.data, small_config(model={"initial_scale": 0.25}, max_size=128), seed=0)
    assert table.shape == (planted.data.n, 1, 128)
    assert float(table.std()) == pytest.approx(0.25, rel=0.02)
