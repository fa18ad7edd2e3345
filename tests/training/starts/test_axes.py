"""The axes of the normalised pairs, against a dense SVD."""

import numpy as np
import pytest
import torch

from ciess.data import Pairs
from ciess.data.planted import Planted
from ciess.training.starts.axes import leading_axes

CPU = torch.device("cpu")


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.5])
def test_they_are_those_of_a_dense_svd(planted: Planted, exponent: float) -> None:
    data = planted.data
    dense = np.zeros((data.n_users, data.n_items))
    dense[data.train.users, data.train.items] = 1
    users, items = np.maximum(dense.sum(1), 1), np.maximum(dense.sum(0), 1)
    matrix = users[:, None] ** -0.5 * dense * items**-exponent
    u, s, vt = np.linalg.svd(matrix)
    found = leading_axes(data.train, data.n_users, data.n_items, exponent, 8, CPU)
    np.testing.assert_allclose(found.values.numpy(), s[:8], rtol=0.03)
    assert found.users is not None
    lowrank = (found.users * found.values @ found.items.T).numpy()
    best = u[:, :8] * s[:8] @ vt[:8]
    assert np.linalg.norm(matrix - lowrank) <= 1.01 * np.linalg.norm(matrix - best)


def test_equal_arguments_give_equal_bits_and_leave_the_global_generator_alone(planted: Planted) -> None:
    data = planted.data
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = leading_axes(data.train, data.n_users, data.n_items, 0.4, 8, CPU)
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(6)
    second = leading_axes(data.train, data.n_users, data.n_items, 0.4, 8, CPU)
    assert first.users is not None and second.users is not None and first.users.equal(second.users)
    assert first.items.equal(second.items) and first.values.equal(second.values)


def test_without_users_the_rest_is_the_same(planted: Planted) -> None:
    data = planted.data
    whole = leading_axes(data.train, data.n_users, data.n_items, 0.4, 8, CPU)
    found = leading_axes(data.train, data.n_users, data.n_items, 0.4, 8, CPU, with_users=False)
    assert found.users is None and whole.users is not None
    assert found.items.equal(whole.items) and found.values.equal(whole.values)
    assert whole.bytes - found.bytes == 4 * 8 * data.n_users


def test_fewer_rows_than_columns_leave_axes_of_zeros() -> None:
    pairs = Pairs.sorted(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]))
    found = leading_axes(pairs, 3, 2, 0.5, 6, CPU)
    assert (
        found.users is not None
        and found.users.shape == (3, 6)
        and found.items.shape == (2, 6)
        and found.values.shape == (6,)
    )
    assert found.values[:2].gt(0).all() and found.values[2:].eq(0).all()
    assert found.items[:, 2:].eq(0).all() and found.users[:, 2:].eq(0).all()
