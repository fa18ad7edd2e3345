import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ciess.data import Interactions, Pairs
from ciess.data.planted import Planted
from ciess.models import graph as graph_module
from ciess.models.graph import Graph, Kernel, blocks

WIDTHS = [1, 5, 32, 33, 128]
NORMALISATIONS = ["symmetric", "row"]


def dense(data: Interactions, normalisation: str) -> Tensor:
    """The normalised adjacency, entry by entry, in double precision."""
    matrix = np.zeros((data.n, data.n))
    for user, item in zip(data.train.users, data.train.items, strict=True):
        matrix[user, data.n_users + item] = matrix[data.n_users + item, user] = 1
    if normalisation == "row":
        matrix += np.eye(data.n)
        return torch.from_numpy(matrix / matrix.sum(axis=1, keepdims=True))
    degrees = matrix.sum(axis=1)
    for row, column in np.argwhere(matrix):
        matrix[row, column] = 1 / np.sqrt(degrees[row] * degrees[column])
    return torch.from_numpy(matrix)


def graph_of(data: Interactions, normalisation: str) -> Graph:
    return Graph(data.train, data.n_users, data.n_items, normalisation)


def table(data: Interactions, width: int, seed: int = 0) -> Tensor:
    return torch.randn(data.n, width, generator=torch.Generator().manual_seed(seed))


def assert_equal(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(params=["tiny", "planted"])
def data(request: pytest.FixtureRequest, tiny: Interactions, planted: Planted) -> Interactions:
    """`tiny` has items without a training pair."""
    return tiny if request.param == "tiny" else planted.data


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_multiply_is_the_dense_product(data: Interactions, normalisation: str, width: int) -> None:
    x = table(data, width)
    product = graph_of(data, normalisation).multiply(x)
    assert product.dtype == torch.float32
    assert_equal(product, dense(data, normalisation) @ x.double())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_gradient_of_multiply_is_that_of_the_dense_product(data: Interactions, normalisation: str, width: int) -> None:
    x = table(data, width).requires_grad_()
    weights = table(data, width, seed=1)
    (weights * graph_of(data, normalisation).multiply(x)).sum().backward()
    exact = x.detach().double().requires_grad_()
    (weights.double() * (dense(data, normalisation) @ exact)).sum().backward()
    assert_equal(x.grad, exact.grad)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_average_is_the_mean_of_the_powers(data: Interactions, layers: int, width: int) -> None:
    x = table(data, width).requires_grad_()
    weights = table(data, width, seed=1)
    average = graph_of(data, "symmetric").average(x, layers)
    (weights * average).sum().backward()
    exact, matrix = x.detach().double().requires_grad_(), dense(data, "symmetric")
    powers = torch.stack([torch.linalg.matrix_power(matrix, power) @ exact for power in range(layers + 1)])
    (weights.double() * powers.mean(0)).sum().backward()
    assert_equal(average.detach(), powers.mean(0).detach())
    assert_equal(x.grad, exact.grad)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_second_derivatives_are_those_of_the_dense_product(tiny: Interactions, normalisation: str) -> None:
    x = table(tiny, 3).requires_grad_()
    exact = x.detach().double().requires_grad_()
    graph, matrix = graph_of(tiny, normalisation), dense(tiny, normalisation)
    second = []
    for point, product in ((x, graph.multiply), (exact, lambda y: matrix @ y)):
        (first,) = torch.autograd.grad(product(point).pow(3).sum(), point, create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), point)[0])
    torch.testing.assert_close(second[0].double(), second[1], rtol=1e-4, atol=1e-4)


def test_rows_without_an_edge_stay_zero_or_map_to_themselves(tiny: Interactions) -> None:
    x = table(tiny, 4)
    lonely = tiny.n_users + np.array([5, 6])
    assert graph_of(tiny, "symmetric").multiply(x)[lonely].eq(0).all()
    assert graph_of(tiny, "row").multiply(x)[lonely].equal(x[lonely])
    assert_equal(graph_of(tiny, "symmetric").average(x, 3)[lonely], x[lonely].double() / 4)


def test_rows_of_the_row_normalisation_sum_to_one(data: Interactions) -> None:
    assert_equal(graph_of(data, "row").multiply(torch.ones(data.n, 1)), torch.ones(data.n, 1).double())


def test_symmetric_values_are_those_of_pyg(data: Interactions, pyg) -> None:
    rows = torch.from_numpy(data.train.users.astype(np.int64))
    columns = torch.from_numpy(data.train.items.astype(np.int64)) + data.n_users
    edges = torch.stack([torch.cat([rows, columns]), torch.cat([columns, rows])])
    edge_index, weights = pyg.nn.conv.gcn_conv.gcn_norm(edges, num_nodes=data.n, add_self_loops=False)
    expected = torch.zeros(data.n, data.n)
    expected[edge_index[1], edge_index[0]] = weights
    torch.testing.assert_close(graph_of(data, "symmetric").matrix.to_dense(), expected)
    x = table(data, 7)
    torch.testing.assert_close(graph_of(data, "symmetric").multiply(x), pyg.nn.LGConv()(x, edges))


def test_indices_are_int32_and_values_float32(tiny: Interactions) -> None:
    matrix = graph_of(tiny, "row").matrix
    assert matrix.crow_indices().dtype == matrix.col_indices().dtype == torch.int32
    assert matrix.values().dtype == torch.float32


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_any_block_width_gives_the_same_product(planted: Planted, normalisation: str, monkeypatch) -> None:
    x, graph = table(planted.data, 50), graph_of(planted.data, normalisation)
    expected = dense(planted.data, normalisation) @ x.double()
    for block in (0, 1, 16, 49, 64):
        monkeypatch.setitem(graph_module.KERNELS, "cpu", Kernel(block=block))
        assert_equal(graph.multiply(x), expected)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_negligible_entries_are_zeros_to_a_cpu_s_products(planted: Planted, normalisation: str) -> None:
    """So that a processor, slow with floats below 1.2e-38, meets none of those that training leaves behind."""
    graph, x = graph_of(planted.data, normalisation), table(planted.data, 40)
    tiny, small = x.clone(), x.clone()
    tiny[::3, 7], small[::3, 7] = 1e-21, 0
    assert graph.multiply(tiny).equal(graph.multiply(small))
    assert (graph.multiply(torch.full_like(x, 1e-19)) > 0).all()
    if normalisation == "symmetric":
        assert graph.average(tiny, 3).equal(graph.average(small, 3))
        gradients = []
        for seed in (tiny, small):
            leaf = x.clone().requires_grad_()
            graph.average(leaf, 3).backward(seed)
            gradients.append(leaf.grad)
        assert gradients[0].equal(gradients[1])


@given(st.integers(0, 300))
def test_blocks_cover_every_column_once_within_the_kernels_width(width: int) -> None:
    parts = blocks(width, "cpu")
    assert [column for part in parts for column in range(part.start, part.stop)] == list(range(width))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes, default=0) <= graph_module.KERNELS["cpu"].block
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_a_table_without_columns_has_a_product_without_columns(tiny: Interactions) -> None:
    assert graph_of(tiny, "symmetric").average(torch.zeros(12, 0), 3).shape == (12, 0)
    assert graph_of(tiny, "row").multiply(torch.zeros(12, 0)).shape == (12, 0)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
class TestDropped:
    """Node dropout of NGCF: entries go at random, those that stay are scaled by 1 / (1 - share)."""

    def test_entries_are_scaled_or_gone(self, planted: Planted, normalisation: str) -> None:
        graph = graph_of(planted.data, normalisation)
        values = graph.dropped(0.25, torch.Generator().manual_seed(0)).matrix.values() / graph.matrix.values()
        kept = values > 0
        torch.testing.assert_close(values[kept], torch.full_like(values[kept], 4 / 3))
        # 2,676 edges at least: five standard deviations of the share are 0.042.
        assert abs(float(kept.float().mean()) - 0.75) < 0.042

    def test_gradient_is_that_of_the_transpose(self, planted: Planted, normalisation: str) -> None:
        graph = graph_of(planted.data, normalisation).dropped(0.5, torch.Generator().manual_seed(0))
        x, y = table(planted.data, 6).requires_grad_(), table(planted.data, 6, seed=1)
        (y * graph.multiply(x)).sum().backward()
        assert_equal(x.grad, graph.matrix.to_dense().double().T @ y.double())
        assert_equal(graph.transpose.to_dense(), graph.matrix.to_dense().double().T)

    def test_the_mean_of_many_is_the_graph(self, tiny: Interactions, normalisation: str) -> None:
        graph, generator = graph_of(tiny, normalisation), torch.Generator().manual_seed(0)
        mean = sum(graph.dropped(0.2, generator).matrix.to_dense() for _ in range(4000)) / 4000
        # Standard deviation of an entry a is a * sqrt(.2 / .8 / 4000) = .0079 a; 40 entries.
        torch.testing.assert_close(mean, graph.matrix.to_dense(), rtol=0.04, atol=0)

    def test_the_graph_itself_stays_whole(self, tiny: Interactions, normalisation: str) -> None:
        graph = graph_of(tiny, normalisation)
        before = graph.matrix.values().clone()
        graph.dropped(0.9, torch.Generator().manual_seed(0))
        assert graph.matrix.values().equal(before)

    def test_equal_generators_drop_the_same(self, planted: Planted, normalisation: str) -> None:
        graph = graph_of(planted.data, normalisation)
        first, second, other = (graph.dropped(0.5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert first.matrix.values().equal(second.matrix.values())
        assert not first.matrix.values().equal(other.matrix.values())


def test_a_graph_of_no_pairs_propagates_nothing() -> None:
    graph = Graph(Pairs.none(), 2, 3, "symmetric")
    assert graph.multiply(torch.ones(5, 2)).eq(0).all()
