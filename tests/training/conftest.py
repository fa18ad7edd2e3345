from collections.abc import Callable

import numpy as np
import pytest

from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.training.fit import FitResult


@pytest.fixture(scope="session")
def data(planted: Planted) -> Interactions:
    """The planted data of 120 users and 80 items."""
    return planted.data


@pytest.fixture(scope="session")
def assert_same() -> Callable[[FitResult, FitResult], None]:
    """assert_same(result, expected): equal bits."""

    def check(result: FitResult, expected: FitResult) -> None:
        np.testing.assert_array_equal(result.table, expected.table)
        assert set(result.weights) == set(expected.weights)
        for name, value in expected.weights.items():
            np.testing.assert_array_equal(result.weights[name], value)
        assert result.recommender.encoded.equal(expected.recommender.encoded)
        assert result.history == expected.history
        assert (result.epochs, result.best_epoch) == (expected.epochs, expected.best_epoch)

    return check
