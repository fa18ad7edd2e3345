"""A search whose masks are written by hand, and its retraining."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from ciess import masks
from ciess.config.recommender import RecommenderConfig
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask
from ciess.retraining.choice import Option, mask_key
from ciess.retraining.retraining import Retraining
from ciess.search.candidates import Candidate
from ciess.search.environment import Environment
from ciess.search.reference import Reference, train_reference
from ciess.storage.columns import RETRAINED
from ciess.storage.storage import Storage
from ciess.tables import protocol
from ciess.training import loop as fit_module
from ciess.training.fit import FitResult
from ciess.training.loop import Training

MAX_SIZE = 16
Row = dict[str, Any]
Start = Callable[..., Retraining]
Epochs = list[tuple[str, int, str, int]]


@pytest.fixture(scope="session")
def settings_of() -> Callable[..., SearchConfig]:
    """settings_of(recommender, **changes): of a search with this recommender."""

    def make(recommender: RecommenderConfig, **changes: Any) -> SearchConfig:
        fields = {name: getattr(recommender, name) for name in RecommenderConfig.model_fields}
        fields |= {"min_size": 1, "start": "fresh"}
        return SearchConfig(**fields | {"sparsities": (0.8, 0.9), "agent": {"hidden": 16}} | changes)

    return make


@pytest.fixture(scope="session")
def small(small_config: Callable[..., RecommenderConfig]) -> Callable[..., RecommenderConfig]:
    """Trainings of 12 epochs at most."""
    return lambda backbone="lightgcn": small_config(
        backbone, learning_rate=0.05, max_epochs=12, evaluate_every=2, patience=2
    )


@pytest.fixture(scope="session")
def config(small: Callable[..., RecommenderConfig], settings_of: Callable[..., SearchConfig]) -> SearchConfig:
    return settings_of(small())


@pytest.fixture(scope="session")
def found(planted: Planted, config: SearchConfig, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return train_reference(
        planted.data, config.recommender(), config.seed, Storage(tmp_path_factory.mktemp("run") / "reference")
    )


@pytest.fixture(scope="session")
def candidate() -> Callable[..., Any]:
    """candidate(sizes, ratio, iteration, origin, users=...): a mask that a search visited."""

    def make(sizes: npt.ArrayLike, ratio: float, iteration: int = 1, origin: str = "search", users: float = 0.5) -> Any:
        mask = PrefixMask(np.asarray(sizes, np.int16), MAX_SIZE)
        episode = 0 if origin == "equal" else 1
        return Candidate(episode, iteration, 0, float(masks.sparsity(mask)), ratio, users, ratio / 2, origin, mask)

    return make


@pytest.fixture(scope="session")
def visited(candidate: Callable[..., Candidate]) -> Callable[..., list[Candidate]]:
    """visited(data): at 80 % equal sizes serve better than these, at 90 % two dimensions for users by far."""

    def make(data: Interactions) -> list[Candidate]:
        n, users = data.n, np.arange(data.n) < data.n_users
        degrees = data.degrees()
        half, rare = np.ones(n), np.ones(n)
        half[data.n_users :][:40] = 4
        rare[np.argsort(degrees, kind="stable")[:120]] = 2
        return [
            candidate(np.full(n, 3), 0.99, 1, "equal"),
            candidate(np.where(users, 1, 2), 0.6, 1),
            candidate(half, 0.65, 2),
            candidate(np.full(n, 10), 0.98, 3),
            candidate(np.where(users, 2, 1), 0.7, 4),
            candidate(rare, 0.5, 5),
        ]

    return make


@pytest.fixture(scope="session")
def prepared() -> Callable[..., Retraining]:
    """prepared(data, config, found, run, seen, **settings): a retraining."""

    def make(
        data: Interactions, config: SearchConfig, found: Reference, run: Storage, seen: list[Candidate], **settings: Any
    ) -> Retraining:
        environment = Environment(
            data.train, data.n_users, data.n_items, MAX_SIZE, found.quality, found.counted, config.zero_reference
        )
        return Retraining(data, config, RetrainConfig(**settings), seen, found, environment, run, "abc")

    return make


@pytest.fixture
def start(
    planted: Planted,
    config: SearchConfig,
    found: Reference,
    tmp_path: Path,
    visited: Callable[..., list[Candidate]],
    prepared: Callable[..., Retraining],
) -> Start:
    """start(sparsity=..., seen=candidates, config=..., data=..., run=...): a retraining in a run directory."""

    def make(seen: list[Candidate] | None = None, **options: Any) -> Retraining:
        data = options.pop("data", planted.data)
        return prepared(
            data,
            options.pop("config", config),
            options.pop("found", found),
            options.pop("run", Storage(tmp_path / "run")),
            visited(data) if seen is None else seen,
            **options,
        )

    return make


def watch(monkeypatch: pytest.MonkeyPatch) -> tuple[Epochs, list[str]]:
    """Every epoch that is trained, as (mask, seed, choose or refit, epoch), and every test, as the mask."""
    epochs: Epochs = []
    tests: list[str] = []
    train, test = Training.epoch, protocol.test_metrics

    def spy(self: Training, epoch: int) -> float:
        assert isinstance(self.request.mask, PrefixMask)
        stage = "choose" if self.request.epochs is None else "refit"
        epochs.append((mask_key(self.request.mask), self.request.seed, stage, epoch))
        return train(self, epoch)

    def spy_test(trained_on: Any, config: Any, result: FitResult) -> Any:
        tests.append(f"{len(trained_on.train)}")
        return test(trained_on, config, result)

    monkeypatch.setattr(fit_module.Training, "epoch", spy)
    monkeypatch.setattr(protocol, "test_metrics", spy_test)
    return epochs, tests


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Epochs:
    return watch(monkeypatch)[0]


@pytest.fixture(scope="session")
def finished(
    planted: Planted,
    config: SearchConfig,
    found: Reference,
    tmp_path_factory: pytest.TempPathFactory,
    visited: Callable[..., list[Candidate]],
    prepared: Callable[..., Retraining],
) -> tuple[Retraining, Epochs, list[str]]:
    """Two budgets and the full table, what was trained for them, and what was tested."""
    with pytest.MonkeyPatch.context() as patch:
        epochs, tests = watch(patch)
        run = Storage(tmp_path_factory.mktemp("finished"))
        retraining = prepared(planted.data, config, found, run, visited(planted.data), sparsity=(0.8, 0.9))
        for sparsity in (0.8, 0.9):
            retraining.budget(sparsity, 0)
        retraining.full(0)
    return retraining, epochs, tests


@pytest.fixture(scope="session")
def rows() -> Callable[..., list[Row]]:
    """rows(run, **values): what stood for choice, where these columns have these values."""

    def select(run: Storage, **values: Any) -> list[Row]:
        return [
            row
            for row in run.read_table("retrained.parquet").to_pylist()
            if all(row[name] == value for name, value in values.items())
        ]

    return select


@pytest.fixture(scope="session")
def results() -> Callable[..., list[Row]]:
    """results(run, **values): rows of results.parquet without seconds, sorted."""

    def select(run: Storage, **values: Any) -> list[Row]:
        table = run.read_table("results.parquet").drop_columns("seconds").to_pylist()
        found = [row for row in table if all(row[name] == value for name, value in values.items())]
        return sorted(found, key=lambda row: (row["candidate"], row["split"], row["metric"], row["k"] or 0))

    return select


@pytest.fixture(scope="session")
def judge() -> Callable[..., None]:
    """judge(run, options, ratios): as if an earlier run had found these ratios after full training."""

    def write(run: Storage, options: list[Option], ratios: list[float], seed: int = 0) -> None:
        found = [
            {
                "seed": seed,
                "mask": option.key,
                "target_sparsity": 0.5,
                "quality_ratio": ratio,
                "quality": 0.1,
                "epochs": 2,
            }
            for option, ratio in zip(options, ratios, strict=True)
        ]
        run.write_table("retrained.parquet", pa.Table.from_pylist(found, schema=RETRAINED))

    return write
