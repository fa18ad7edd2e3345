"""What tests of starts share."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask
from ciess.training.fit import FitResult, fit
from ciess.training.loop import FitRequest
from ciess.training.prepared import prepare
from ciess.training.starts import axes
from ciess.training.starts.start import Start
from ciess.training.starts.weights import initial_weights

Begin = Callable[..., FitResult]


@pytest.fixture
def data(planted: Planted) -> Interactions:
    return planted.data


@pytest.fixture
def begin(data: Interactions, begin_on: Begin) -> Begin:
    """begin(config, mask, start, reference): the model of a start, without training."""
    return functools.partial(begin_on, data)


@pytest.fixture(scope="session")
def begin_on() -> Begin:
    """begin_on(data, ...): the same on other data."""

    def make(
        data: Interactions, config: RecommenderConfig, mask: PrefixMask, start: Start, reference=None
    ) -> FitResult:
        prepared = prepare(data, torch.device("cpu"))
        initial = initial_weights(data, prepared, config, mask, start, 0, reference)
        return fit(data, FitRequest(config, mask, 0, epochs=0, initial=initial))

    return make


@pytest.fixture
def items_only(data: Interactions) -> Callable[[int, int], PrefixMask]:
    """items_only(size, max_size): items of one size, users without rows."""

    def make(size: int, max_size: int) -> PrefixMask:
        sizes = np.repeat([0, size], [data.n_users, data.n_items]).astype(np.int16)
        return PrefixMask(sizes, max_size)

    return make


@pytest.fixture
def exact(data: Interactions, monkeypatch: pytest.MonkeyPatch) -> Interactions:
    """The data, not seen before, under an SVD that goes on until it is exact."""
    monkeypatch.setattr(axes, "POWER_STEPS", 60)
    return dataclasses.replace(data)
