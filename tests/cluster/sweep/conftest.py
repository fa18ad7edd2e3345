"""A plan of searches whose masks are written here by hand."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from ciess import masks
from ciess.cluster.config import ClusterConfig
from ciess.cluster.sweep.config import SweepConfig
from ciess.cluster.sweep.plan import RetrainingPlan
from ciess.cluster.sweep.work import MethodWork, ReferenceWork, SearchWork, TrainingWork
from ciess.config.data import DataConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask
from ciess.methods import METHODS
from ciess.search.candidates import Candidate, to_table
from ciess.search.reference import Reference, train_reference
from ciess.storage.storage import Storage
from ciess.tables import protocol as reference_module
from ciess.training.history import EpochRecord, history_table

MAX_SIZE = 16


@pytest.fixture(scope="session")
def sweep_config() -> Callable[..., SweepConfig]:
    """sweep_config(**changes): of two searches with two budgets."""

    def make(**changes: Any) -> SweepConfig:
        plain: dict[str, Any] = {
            "memory_weights": (0.2, 0.8),
            "sparsities": (0.5, 0.75),
            "episodes": 2,
            "iterations": 2,
            "max_size": MAX_SIZE,
            "candidates": 1,
            "settings": (
                "training.max-epochs=2",
                "training.evaluate-every=1",
                "training.batch-size=500",
                "device=cpu",
                "start=fresh",
                "min_size=1",
            ),
        }
        return SweepConfig(**plain | changes)

    return make


@pytest.fixture(scope="session")
def trained(
    planted: Planted, tmp_path_factory: pytest.TempPathFactory, sweep_config: Callable[..., SweepConfig]
) -> tuple[Path, Reference]:
    """The reference of every search, and its folder."""
    folder = tmp_path_factory.mktemp("reference")
    config = next(iter(sweep_config().searches.values()))
    return folder, train_reference(planted.data, config.started(), 0, Storage(folder))


@pytest.fixture(scope="session")
def sizes_of() -> Callable[..., npt.NDArray[np.int16]]:
    """sizes_of(data, users, items): one size for all users, one for all items."""

    def make(data: Interactions, users: int, items: int) -> npt.NDArray[np.int16]:
        return np.where(np.arange(data.n) < data.n_users, users, items).astype(np.int16)

    return make


@pytest.fixture(scope="session")
def candidate() -> Callable[..., Candidate]:
    """candidate(sizes, iteration, ratio): a mask that a search visited."""

    def make(sizes: npt.NDArray[np.int16], iteration: int, ratio: float = 0.5) -> Candidate:
        mask = PrefixMask(sizes, MAX_SIZE)
        return Candidate(1, iteration, 0, float(masks.sparsity(mask)), ratio, ratio, ratio / 2, "search", mask)

    return make


@pytest.fixture(scope="session")
def plain(
    sizes_of: Callable[..., npt.NDArray[np.int16]], candidate: Callable[..., Candidate]
) -> Callable[..., list[Candidate]]:
    """plain(data): the best of 50 % keeps 80 %, too, as few do; another keeps 50 % alone."""

    def make(data: Interactions) -> list[Candidate]:
        return [candidate(sizes_of(data, 8, 7), 1, 0.9), candidate(sizes_of(data, 2, 3), 2, 0.6)]

    return make


Plan = Callable[..., RetrainingPlan]


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch, trained: tuple[Path, Reference]) -> None:
    """A plan is made by the driver, which must train nothing."""

    def refuse(*_: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(reference_module, "fit", refuse)


@pytest.fixture
def plan(
    planted: Planted,
    trained: tuple[Path, Reference],
    tmp_path: Path,
    untrained: None,
    sweep_config: Callable[..., SweepConfig],
    plain: Callable[..., list[Candidate]],
) -> Plan:
    """plan(masks by search, failures, config): of a sweep directory with these searches and their reference."""
    data = planted.data

    def make(
        visited: dict[str, list[Candidate]] | None = None,
        failures: dict[str, str] | None = None,
        config: SweepConfig | None = None,
    ) -> RetrainingPlan:
        config, sweep = config or sweep_config(), Storage(tmp_path / "sweep")
        references: dict[str, ReferenceWork] = {}
        searches: dict[str, SearchWork] = {}
        for name, search in config.searches.items():
            label = f"{search.backbone}-s{search.seed}"
            folder = sweep.child("references", label)
            references[label] = ReferenceWork(folder, search.started(), search.seed)
            run = sweep.child("searches", name)
            if search.backbone == "lightgcn" and search.seed == 0:
                for place in (folder, run.child("reference")):
                    shutil.copytree(trained[0], place.root, dirs_exist_ok=True)
            seen = (visited or {}).get(name, plain(data))
            run.write_table("candidates.parquet", to_table(seen, data.n))
            searches[name] = SearchWork(name, run, search, folder, DataConfig(), ClusterConfig())
        learned = {
            f"lightgcn-{method}-s0": MethodWork(
                sweep.child("learned", f"lightgcn-{method}-s0"),
                method,
                config.methods_of(references["lightgcn-s0"].config),
                0,
                [masks.exact(c) for c in config.sparsities],
            )
            for method in config.methods
            if METHODS[method].learned
        }
        return RetrainingPlan(data, config, sweep, references, searches, failures or {}, learned)

    return make


@pytest.fixture(scope="session")
def finish() -> Callable[..., None]:
    """finish(work, found, share, n_users): as if it had served each user this share of what the reference does."""

    def write(work: TrainingWork, found: Reference, share: float, n_users: int, epoch: int = 2) -> None:
        quality = (found.quality[:n_users] * np.float32(share)).astype(np.float32)
        work.folder.write_table("quality.parquet", pa.table({"quality": quality}))
        work.folder.write_table("history.parquet", history_table([EpochRecord(epoch, 0.5, 0.25)]))
        means = {"quality": float(quality.mean()), "Recall@20": share}
        work.folder.write_json("chosen.json", {"means": means, "epoch": epoch, "seconds": 3.0})

    return write
