from collections.abc import Callable
from typing import Any

import pytest

from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.data.planted import Planted

Config = Callable[..., FitConfig]


@pytest.fixture(scope="module")
def config(small_config: Callable[..., RecommenderConfig]) -> Config:
    """config(backbone, pep={...}): settings under which half and four fifths go within some 40 steps."""

    def make(backbone: str = "lightgcn", *, model: dict[str, Any] | None = None, **own: Any) -> FitConfig:
        plain = small_config(backbone, model=model)
        quick = {
            "initial_threshold": -13.0,
            "threshold_scale": 100.0,
            "learning_rate": 0.2,
            "threshold_decay": 1e-3,
            "decay": 1e-2,
            "check_every": 2,
            "max_steps": 60,
            "granularity": "feature_dim",
        }
        shared = {name: getattr(plain, name) for name in RecommenderConfig.model_fields}
        return FitConfig(**shared, pep=quick | own)

    return make


@pytest.fixture(scope="module")
def data(planted: Planted) -> Interactions:
    return planted.data
