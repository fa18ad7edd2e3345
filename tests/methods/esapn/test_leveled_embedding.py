import numpy as np
import pytest
import torch
from torch import Tensor

from ciess.methods.esapn.leveled_embedding import LeveledEmbedding

SIZES = (2, 4, 8, 12)
USERS, N = 7, 18


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(tables: int = 1, bn_tanh: bool = True, scale: float = 0.1) -> LeveledEmbedding:
    """All levels in use, and no part as it was drawn."""
    initial = scale * torch.randn(N, tables, 16, generator=generator())
    sides = (slice(0, USERS), slice(USERS, N))
    embedding = LeveledEmbedding(initial, SIZES, sides, bn_tanh, generator(1))
    embedding.levels.copy_(torch.arange(N) % len(SIZES))
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(2))
    return embedding


def by_row(embedding: LeveledEmbedding) -> Tensor:
    """The table by a loop over rows and their own part of the chain."""
    rows = []
    for row in range(N):
        level, parts = int(embedding.levels[row]), []
        size = SIZES[level]
        for table in range(embedding.tables):
            chain = embedding.chains[(row >= USERS) * embedding.tables + table]
            values = embedding.weights[level][row, table * size : (table + 1) * size]
            for layer in list(chain.maps)[level:]:
                values = layer.weight @ values + layer.bias
            parts.append(values)
        rows.append(torch.stack(parts))
    values = torch.stack(rows)
    if embedding.chains[0].scale is not None:
        for side, part in enumerate((slice(0, USERS), slice(USERS, N))):
            for table in range(embedding.tables):
                chain, own = embedding.chains[side * embedding.tables + table], values[part, table]
                own = (own - own.mean(0)) / (own.var(0, unbiased=False) + 1e-5).sqrt()
                values[part, table] = torch.tanh(own * chain.scale + chain.shift)
    return values.reshape(N, -1)


each = pytest.mark.parametrize(("tables", "bn_tanh"), [(1, True), (1, False), (2, True), (2, False)])


@each
@torch.no_grad()
def test_a_row_is_its_own_size_mapped_through_the_rest_of_the_chain(tables: int, bn_tanh: bool) -> None:
    embedding = make(tables, bn_tanh)
    assert embedding().shape == (N, tables * SIZES[-1])
    torch.testing.assert_close(embedding(), by_row(embedding), rtol=1e-5, atol=1e-6)


@each
@torch.no_grad()
def test_growing_leaves_the_output_as_it_is_at_that_moment(tables: int, bn_tanh: bool) -> None:
    embedding = make(tables, bn_tanh)
    while bool(embedding.growable.any()):
        before, levels = embedding(), embedding.levels.clone()
        chosen = embedding.growable & (torch.rand(N, generator=generator(3)) < 0.7) | (levels == levels.min())
        embedding.enlarge(chosen)
        assert embedding.levels.equal(levels + chosen)
        torch.testing.assert_close(embedding(), before, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_growing_changes_only_the_next_size_of_the_rows_that_grow() -> None:
    embedding = make(tables=2)
    before = [weight.clone() for weight in embedding.weights]
    chosen = torch.zeros(N, dtype=torch.bool)
    chosen[[0, 9]] = True
    assert embedding.levels[chosen].tolist() == [0, 1]
    embedding.enlarge(chosen)
    changed = [
        torch.nonzero((weight != old).any(1)).flatten().tolist()
        for weight, old in zip(embedding.weights, before, strict=True)
    ]
    assert changed == [[], [0], [9], []]


def test_only_the_table_of_a_rows_own_size_is_learned() -> None:
    embedding = make()
    (embedding() * torch.randn(N, SIZES[-1], generator=generator(4))).sum().backward()
    for level, weight in enumerate(embedding.weights):
        assert weight.grad is not None
        assert weight.grad.abs().sum(1).bool().equal(embedding.levels == level)


@pytest.mark.parametrize("tables", [1, 2])
@torch.no_grad()
def test_the_table_starts_at_the_scale_that_the_backbone_starts_from(tables: int) -> None:
    initial = 0.1 * torch.randn(4000, tables, 16, generator=generator())
    embedding = LeveledEmbedding(initial, SIZES, (slice(0, 2000), slice(2000, 4000)), True, generator(1))
    assert float(embedding().std()) == pytest.approx(0.1, rel=0.05)


def test_the_size_of_a_row_is_that_of_its_level() -> None:
    embedding = make()
    np.testing.assert_array_equal(embedding.row_sizes().numpy(), np.array(SIZES)[np.arange(N) % 4])
    assert embedding.growable.equal(embedding.levels < 3)
