"""The masked least squares: what it finds, that it never gets worse, and that it stops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ciess.data.planted import Planted
from ciess.models.history import build_graph
from ciess.training.starts.solver import masked_least_squares


@pytest.fixture(scope="module")
def propagate(planted: Planted):
    data = planted.data
    graph = build_graph(data.train, data.n_users, data.n_items, "symmetric")
    return lambda x: graph.average(x, 3)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masks_of(n: int, n_users: int, width: int) -> dict[str, Tensor]:
    generator = np.random.default_rng(0)
    sizes = generator.integers(0, width + 1, n)
    one_sided = np.where(np.arange(n) < n_users, 0, sizes)
    prefix = [np.arange(width) < sizes[:, None], np.arange(width) < one_sided[:, None]]
    sparse = generator.random((n, width)) < 0.4
    return {
        name: torch.from_numpy(mask)
        for name, mask in zip(("prefix", "items only", "sparse"), [*prefix, sparse], strict=True)
    }


@pytest.mark.parametrize("name", ["prefix", "items only", "sparse"])
def test_a_table_that_fits_the_mask_is_found_again(planted: Planted, propagate, name: str) -> None:
    data = planted.data
    mask = masks_of(data.n, data.n_users, 6)[name]
    truth = drawn(data.n, 6) * mask
    found = masked_least_squares(
        propagate, propagate(truth), mask, torch.zeros(data.n, 6), 1e-9, steps=400, tolerance=0
    )
    torch.testing.assert_close(found.table, truth, rtol=0, atol=2e-3)
    assert found.table[~mask].eq(0).all()


@pytest.mark.parametrize("name", ["prefix", "items only", "sparse"])
@pytest.mark.parametrize("ridge", [1e-4, 0.1])
@pytest.mark.parametrize("item_weight", [1.0, 16.0])
def test_it_finds_what_dense_least_squares_find(
    planted: Planted, propagate, name: str, ridge: float, item_weight: float
) -> None:
    data = planted.data
    mask, target = masks_of(data.n, data.n_users, 3)[name], drawn(data.n, 3, seed=1)
    weights = torch.ones(data.n)
    weights[data.n_users :] = item_weight
    matrix = propagate(torch.eye(data.n)).double()
    expected = torch.zeros(data.n, 3, dtype=torch.float64)
    for column in range(3):
        kept = mask[:, column]
        rows = matrix[:, kept] * weights.double().sqrt()[:, None]
        normal = rows.T @ rows + ridge * torch.eye(int(kept.sum()), dtype=torch.float64)
        right = rows.T @ (target[:, column].double() * weights.double().sqrt())
        expected[kept, column] = torch.linalg.solve(normal, right)
    found = masked_least_squares(propagate, target, mask, torch.zeros(data.n, 3), ridge, weights, 500, 0.0)

    def residual(x: Tensor) -> float:
        error = (matrix @ x.double() - target) * weights.double().sqrt()[:, None]
        return float(error.square().sum() + ridge * x.double().square().sum())

    assert residual(found.table) == pytest.approx(residual(expected), rel=1e-4)
    assert found.residuals[-1] == pytest.approx(residual(found.table), rel=1e-3)


@given(seed=st.integers(0, 10_000), ridge=st.sampled_from([0.0, 1e-6, 1e-2]), good=st.booleans())
def test_the_residual_never_rises_and_is_never_above_that_of_the_start(
    planted: Planted, propagate, seed: int, ridge: float, good: bool
) -> None:
    """Also after so many steps, with so small a ridge, that float32 has nothing more to give."""
    data = planted.data
    mask = masks_of(data.n, data.n_users, 4)["prefix"]
    truth = drawn(data.n, 4, seed=seed) * mask
    start = truth if good else 100 * drawn(data.n, 4, seed=seed + 1)
    found = masked_least_squares(propagate, propagate(truth), mask, start, ridge, steps=60, tolerance=0.0)
    assert all(after <= before for before, after in zip(found.residuals, found.residuals[1:], strict=False))
    first = propagate(start * mask) - propagate(truth)
    begun = float(first.double().square().sum() + ridge * (start * mask).double().square().sum())
    assert found.residuals[0] == pytest.approx(begun, rel=1e-5, abs=1e-9)
    last = propagate(found.table) - propagate(truth)
    ended = float(last.double().square().sum() + ridge * found.table.double().square().sum())
    assert ended <= begun * (1 + 1e-5) + 1e-6


def test_it_stops_once_a_step_brings_little(planted: Planted, propagate) -> None:
    data = planted.data
    mask, target = masks_of(data.n, data.n_users, 4)["sparse"], drawn(data.n, 4)
    rough, fine = (
        masked_least_squares(propagate, target, mask, torch.zeros(data.n, 4), 1e-3, steps=200, tolerance=tolerance)
        for tolerance in (1e-2, 1e-6)
    )
    assert len(rough.residuals) < len(fine.residuals) < 200
    assert rough.residuals[-2] - rough.residuals[-1] <= 1e-2 * rough.residuals[-1]
    assert fine.residuals[: len(rough.residuals)] == rough.residuals


def test_columns_and_rows_without_entries_are_no_error(planted: Planted, propagate) -> None:
    data = planted.data
    found = masked_least_squares(
        propagate, drawn(data.n, 3), torch.zeros(data.n, 3, dtype=torch.bool), drawn(data.n, 3, seed=1), 1e-3
    )
    assert found.table.eq(0).all()
    assert found.residuals[-1] == found.residuals[0]
