"""Searches, trainings and retrainings whose run directories are looked at, and how two of them are compared."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

from ciess import masks
from ciess.config.data import DataConfig
from ciess.config.recommender import RecommenderConfig
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions, read
from ciess.data.planted import Planted
from ciess.errors import CiessError
from ciess.masks.mask import PrefixMask
from ciess.runs import fit as run_module
from ciess.runs import search as search_run
from ciess.runs.directory import open_run
from ciess.runs.retrain import retrain_run
from ciess.runs.search import open_reference, run_search
from ciess.search.candidates import Candidate, to_table
from ciess.search.recorder import search_fingerprint
from ciess.storage.checkpoint import load_checkpoint
from ciess.storage.storage import Storage
from ciess.tables import protocol as reference_module
from ciess.tables.protocol import train_table
from ciess.training import loop as fit_module
from ciess.training.fit import FitResult, fit
from ciess.training.loop import FitRequest, Training

Small = Callable[..., SearchConfig]
MAX_SIZE = 16


@pytest.fixture(autouse=True)
def undrawn_searches(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Pictures take longer than these searches, so only the tests that look at them draw any."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(search_run, "search_figures", lambda *_: {})


@pytest.fixture
def pictures() -> None:
    """Asks for pictures."""


@pytest.fixture(scope="session")
def contents() -> Callable[..., dict[str, bytes]]:
    """contents(folder): every file with its bytes."""

    def read(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read


@pytest.fixture(scope="session")
def undisturbed(planted: Planted, tmp_path_factory: pytest.TempPathFactory, small_search: Small) -> Callable[..., Path]:
    """undisturbed(**changes): run directory of small_search(**changes), which nobody interrupted; do not write."""
    found: dict[str, Path] = {}

    def run(**changes: Any) -> Path:
        key = json.dumps(changes, sort_keys=True)
        if key not in found:
            found[key] = tmp_path_factory.mktemp("undisturbed") / "run"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(search_run, "search_figures", lambda *_: {})
                run_search(planted.data, small_search(**changes), str(found[key]))
        return found[key]

    return run


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of the references that are trained."""
    seeds: list[int] = []

    def spy(data: Interactions, request: FitRequest) -> FitResult:
        seeds.append(request.seed)
        return fit(data, request)

    monkeypatch.setattr(reference_module, "fit", spy)
    return seeds


@pytest.fixture(scope="session")
def untimed() -> Callable[..., pa.Table]:
    """untimed(table): without the columns of seconds."""

    def drop(table: pa.Table) -> pa.Table:
        return table.drop_columns([name for name in table.column_names if name.endswith("_seconds")])

    return drop


def last_state(out: Path, data: Interactions, settings: SearchConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays by their bits, and values without seconds, of the last checkpoint."""
    state, notes = load_checkpoint(Storage(out / "checkpoint"), search_fingerprint(data, settings))
    assert state is not None
    assert notes == []
    values = copy.deepcopy(state["values"])
    for row in values["rows"]:
        for name in [name for name in row if name.endswith("_seconds")]:
            del row[name]
    values["told"] = [told[:3] for told in values["told"]]
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in state["arrays"].items()}, values


@pytest.fixture(scope="session")
def assert_same_run(untimed: Callable[..., pa.Table]) -> Callable[..., None]:
    """assert_same_run(first, second, data, settings): in all that two equal searches have in common."""

    def check(first: Path, second: Path, data: Interactions, settings: SearchConfig) -> None:
        runs = [Storage(first), Storage(second)]
        candidates = [run.read_table("candidates.parquet") for run in runs]
        assert len(candidates[0])
        assert candidates[0].equals(candidates[1])
        histories = [untimed(run.read_table("history.parquet")) for run in runs]
        assert len(histories[0])
        assert histories[0].equals(histories[1])
        assert last_state(first, data, settings) == last_state(second, data, settings)
        for name in ("quality.parquet", "weights.safetensors"):
            assert runs[0].read_bytes(f"reference/{name}") == runs[1].read_bytes(f"reference/{name}")
        assert [run.child("checkpoint").names() for run in runs] == [runs[0].child("checkpoint").names()] * 2

    return check


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """refusal(error, data, out, settings, ...): the one line by which a search refuses to begin."""

    def refuse(error: type[CiessError], data: Interactions, out: Path, settings: SearchConfig, **options: Any) -> str:
        with pytest.raises(error) as caught:
            run_search(data, settings, str(out), **options)
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(str(out), "OUT")

    return refuse


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tables that are trained."""
    names: list[str] = []

    def spy(data: Interactions, spec: Any, *others: Any, **further: Any) -> Any:
        names.append(spec.name)
        return train_table(data, spec, *others, **further)

    monkeypatch.setattr(run_module, "train_table", spy)
    return names


@pytest.fixture(scope="session")
def ratings(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = planted.data
    pairs = data.train + data.valid + data.test
    path = tmp_path_factory.mktemp("data") / "ratings.csv"
    csv.write_csv(pa.table({"user_id": pairs.users, "item_id": pairs.items}), path)
    return path


@pytest.fixture(scope="session")
def data(ratings: Path) -> Interactions:
    return read(ratings)


@pytest.fixture(scope="session")
def search_config(small_config: Callable[..., RecommenderConfig]) -> SearchConfig:
    """Of the search whose masks are retrained."""
    recommender = small_config(learning_rate=0.05, max_epochs=12, evaluate_every=2, patience=2)
    fields = {name: getattr(recommender, name) for name in RecommenderConfig.model_fields}
    fields |= {"min_size": 1, "start": "fresh"}
    return SearchConfig(**fields, sparsities=(0.8, 0.9), candidates=2, random_walk=False)


@pytest.fixture(scope="session")
def visited() -> Callable[..., list[Candidate]]:
    """visited(data): at 80 % equal sizes serve better than these, at 90 % two dimensions for users are the best."""

    def make(data: Interactions) -> list[Candidate]:
        users = np.arange(data.n) < data.n_users
        parts = [(np.where(users, 1, 2), 0.6), (np.where(users, 2, 1), 0.7), (np.full(data.n, 10), 0.9)]
        return [
            Candidate(1, place, 0, float(masks.sparsity(mask)), ratio, ratio, ratio / 2, "search", mask)
            for place, (sizes, ratio) in enumerate(parts, start=1)
            for mask in [PrefixMask(sizes.astype(np.int16), MAX_SIZE)]
        ]

    return make


@pytest.fixture(scope="session")
def finished_search(
    data: Interactions,
    search_config: SearchConfig,
    tmp_path_factory: pytest.TempPathFactory,
    visited: Callable[..., list[Candidate]],
) -> Path:
    """A run directory with a reference and three masks."""
    run = Storage(tmp_path_factory.mktemp("search") / "run")
    open_run(run, data, search_config, DataConfig())
    open_reference(data, search_config, run)
    run.write_table("candidates.parquet", to_table(visited(data), data.n))
    return Path(run.root)


@pytest.fixture
def searched(finished_search: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    shutil.copytree(finished_search, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="session")
def settings() -> Callable[..., RetrainConfig]:
    """settings(0.8, 0.9, ...): of a retraining for these sparsities."""

    def make(*sparsity: float, **changes: Any) -> RetrainConfig:
        return RetrainConfig(sparsity=sparsity or (0.8, 0.9), **changes)

    return make


@pytest.fixture(scope="session")
def retrained(
    finished_search: Path,
    data: Interactions,
    tmp_path_factory: pytest.TempPathFactory,
    settings: Callable[..., RetrainConfig],
) -> tuple[Path, str]:
    """Two budgets served, one that none keeps: the run directory and the text."""
    out = tmp_path_factory.mktemp("retrained") / "run"
    shutil.copytree(finished_search, out)
    return out, retrain_run(str(out), settings(0.8, 0.9, 0.93), data)


@pytest.fixture
def trained_epochs() -> Iterator[list[int]]:
    """Epochs as they are trained."""
    epochs: list[int] = []
    train = Training.epoch

    def spy(self: Training, epoch: int) -> float:
        epochs.append(epoch)
        return train(self, epoch)

    # That nothing is trained is what some tests look for.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module.Training, "epoch", spy)
        yield epochs


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than the trainings here."""
    monkeypatch.setattr("ciess.runs.retrain.search_figures", lambda *_: {})
    monkeypatch.setattr("ciess.runs.retrain.write_report", lambda *_: [])


@pytest.fixture(scope="session")
def words() -> Callable[..., list[str]]:
    """words(line): cells of a line of a table."""

    def split(line: str) -> list[str]:
        return [cell.strip() for cell in line.split("  ") if cell.strip()]

    return split
