"""Richer states, against loops over rows."""

import math

import numpy as np
import torch

from ciess.data.planted import Planted
from ciess.search.environment import Environment
from ciess.search.traits import row_traits


def test_energy_lies_beyond_the_budgets_columns_of_the_principal_axes(planted: Planted) -> None:
    """Rows along one known axis and rows along all, turned: the first columns hold all of those, half of these."""
    data = planted.data
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    table = torch.zeros(data.n, 8)
    table[:, 0] = 3.0
    needy = torch.arange(data.n) % 3 == 0
    table[needy] = torch.randn(int(needy.sum()), 8, generator=generator).sign()
    found = row_traits(data, (table @ turn)[:, None], np.ones(data.n, np.float32), density=0.5)[:, 0]
    assert found[~needy.numpy()].max() < 0.02
    assert 0.25 < found[needy.numpy()].mean() < 0.6 and found[needy.numpy()].min() > 0.02


def test_neighbours_are_told_by_degree_and_quality(planted: Planted) -> None:
    data, generator = planted.data, np.random.default_rng(0)
    quality = generator.random(data.n).astype(np.float32)
    found = row_traits(data, torch.ones(data.n, 1, 4), quality, density=0.5)
    users, items = data.train.users, data.train.items
    for column, values in ((1, np.log1p(data.degrees())), (2, quality)):
        means = [
            math.fsum(values[data.n_users + i] for i in items[users == u]) / np.sum(users == u)
            for u in range(data.n_users)
        ]
        expected = (np.array(means) - min(means)) / (max(means) - min(means))
        np.testing.assert_allclose(found[: data.n_users, column], expected, atol=1e-5)
    assert found.min() >= 0 and found.max() <= 1


def test_an_empty_row_without_neighbours_is_0(planted: Planted) -> None:
    data = planted.data
    nobody = np.flatnonzero(np.bincount(data.train.items, minlength=data.n_items) == 0)
    table = torch.zeros(data.n, 1, 4)
    table[0] = 1.0
    found = row_traits(data, table, np.ones(data.n, np.float32), density=0.5)
    assert (found[data.n_users + nobody] == 0).all() and (found[1:, 0] == 0).all()


def test_they_stand_after_eq_6_in_a_state(planted: Planted) -> None:
    data = planted.data
    traits = np.random.default_rng(0).random((data.n, 3)).astype(np.float32)
    ones = np.ones(data.n, np.float32)
    world = (data.train, data.n_users, data.n_items, 16, ones, np.ones(data.n, np.bool_))
    rich, plain = (Environment(*world, traits=traits, rich=told) for told in (True, False))
    rows = np.array([2, 5])
    states = [one.state(rows, np.array([3, 4], np.int16), ones[rows]) for one in (rich, plain)]
    np.testing.assert_array_equal(states[0], np.concatenate([states[1], traits[rows]], axis=1))
