import numpy as np
import pytest
import torch

from ciess.masks.mask import Mask, PrefixMask, SparseMask
from ciess.masks.sizes import full
from ciess.models.embedding import MaskedEmbedding, normal_table, xavier_table


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masks(tables: int) -> dict[str, Mask]:
    dense = np.zeros((4, 6 * tables), dtype=bool)
    dense[0, 1] = dense[2, 4] = dense[3, -2] = True
    return {
        "prefix": PrefixMask(np.array([3, 0, 5, 1]), 6),
        "full": full(4, 6),
        "empty": PrefixMask(np.zeros(4, dtype=np.int16), 6),
        "sparse": SparseMask.from_dense(dense, 6),
    }


def expected_mask(mask: Mask, tables: int) -> np.ndarray:
    dense = mask.dense()
    return dense if dense.shape[1] == 6 * tables else np.tile(dense, tables)


@pytest.mark.parametrize("tables", [1, 2])
@pytest.mark.parametrize("kind", ["prefix", "full", "empty", "sparse"])
def test_eq1_the_table_is_the_drawn_one_where_the_mask_keeps_it_and_zero_elsewhere(kind: str, tables: int) -> None:
    mask = masks(tables)[kind]
    initial = normal_table(4, tables, 6, 1.0, generator())
    embedding = MaskedEmbedding(initial, mask, tables)
    masked = np.where(expected_mask(mask, tables), initial.reshape(4, -1).numpy(), 0)
    expected = masked.reshape(4, tables, 6)[:, :, : mask.width].reshape(4, -1)
    np.testing.assert_array_equal(embedding().detach().numpy(), expected)


@pytest.mark.parametrize("tables", [1, 2])
@pytest.mark.parametrize("kind", ["prefix", "full", "sparse"])
def test_eq1_gradient_is_one_inside_the_mask_and_zero_outside(kind: str, tables: int) -> None:
    mask = masks(tables)[kind]
    embedding = MaskedEmbedding(normal_table(4, tables, 6, 1.0, generator()), mask, tables)
    embedding().sum().backward()
    inside = expected_mask(mask, tables).reshape(4, tables, 6)[:, :, : mask.width].reshape(4, -1)
    np.testing.assert_array_equal(embedding.weight.grad.numpy(), inside.astype(np.float32))


def test_columns_that_no_row_keeps_do_not_exist() -> None:
    assert MaskedEmbedding(torch.zeros(4, 2, 6), masks(1)["prefix"], 2).weight.shape == (4, 2 * 5)


def test_a_prefix_mask_takes_the_same_columns_of_both_tables() -> None:
    initial = torch.arange(12.0).reshape(1, 2, 6) + 1
    embedding = MaskedEmbedding(initial, PrefixMask(np.array([2]), 6), 2)
    assert embedding().tolist() == [[1, 2, 7, 8]]


def test_training_leaves_the_initial_table_as_it_was() -> None:
    initial = torch.ones(4, 1, 6)
    embedding = MaskedEmbedding(initial, full(4, 6), 1)
    with torch.no_grad():
        embedding.weight.zero_()
    assert initial.eq(1).all()


def test_normal_table_has_the_scale_asked_for() -> None:
    table = normal_table(1000, 2, 50, 0.01, generator())
    assert table.shape == (1000, 2, 50)
    assert float(table.std()) == pytest.approx(0.01, rel=0.02)
    assert abs(float(table.mean())) < 1e-4


def test_xavier_table_has_the_bound_of_each_side() -> None:
    table = xavier_table(2000, 300, 50, generator())
    assert table.shape == (2300, 1, 50)
    for part, rows in ((table[:2000], 2000), (table[2000:], 300)):
        bound = (6 / (rows + 50)) ** 0.5
        assert 0.999 * bound < float(part.abs().max()) <= bound
        assert float(part.std()) == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.parametrize("draw", [lambda g: normal_table(5, 1, 4, 0.1, g), lambda g: xavier_table(3, 2, 4, g)])
def test_tables_are_functions_of_the_generator(draw) -> None:
    assert draw(generator(1)).equal(draw(generator(1)))
    assert not draw(generator(1)).equal(draw(generator(2)))
