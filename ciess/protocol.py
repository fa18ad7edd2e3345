"""From masks to tested tables, by one protocol for every method (line 17 of Algorithm 1, section 2.3).

Train on training data until validation stops to improve, choose the epoch there; train anew on training and validation
data for as many epochs; rank on test once; save the compressed table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess.artifact import CompressedTable
from ciess.checkpoint import EpochRecord, history_table
from ciess.config import RecommenderConfig
from ciess.data import Interactions
from ciess.fit import FitRequest, FitResult, fit
from ciess.masks import PrefixMask, sparsity
from ciess.methods import Compressed
from ciess.metrics import UserMetrics, evaluate
from ciess.prepared import cpu_threads, prepare, resolve_device
from ciess.results import PER_USER, RESULTS
from ciess.storage import Storage

OnEpoch = Callable[[str, str, EpochRecord], None]
"""Called with (table name, `choose` or `refit`, record) behind every epoch."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """A full training on the training part, at the epoch that validation chose.

    user_quality: Eq. 8 on validation, float32[n_users]. means: of every metric by name, and `quality`, that of Eq. 8.
    epoch: the chosen one. seconds: of training and evaluation. result: None where only the figures are left.
    """

    user_quality: npt.NDArray[np.float32]
    means: dict[str, float]
    epoch: int
    history: tuple[EpochRecord, ...]
    seconds: float
    result: FitResult | None = None


@dataclass(frozen=True, eq=False)
class Tested:
    """The model that is saved, and its metrics on test, which it was ranked on this one time.

    trained_on: what it knows; `refit`: whether that holds the validation data. seconds: of all trainings.
    """

    final: FitResult
    trained_on: Interactions
    metrics: UserMetrics
    seconds: float
    refit: bool


@dataclass(frozen=True)
class TableResult:
    """Rows of results.parquet and per_user.parquet of one table."""

    rows: list[dict[str, Any]]
    per_user: pa.Table


def choose(
    data: Interactions,
    compressed: Compressed,
    config: RecommenderConfig,
    progress: Storage,
    on_epoch: OnEpoch | None = None,
) -> Chosen:
    """Train on the training part until validation stops to improve; progress: folder of its checkpoint.

    A training whose checkpoint is complete is not trained again. Raises FitError for a loss that is not finite.
    """
    result = fit(data, _request(compressed, config, "choose", None, progress, on_epoch))
    assert result.validation is not None
    means = result.validation.means() | {"quality": result.validation.mean_quality()}
    seconds = result.fit_seconds + result.evaluation_seconds
    quality = result.validation.quality()
    return Chosen(quality, means, result.best_epoch, result.history, seconds, result)


def train_table(
    data: Interactions,
    compressed: Compressed,
    config: RecommenderConfig,
    run: Storage,
    refit: bool = True,
    on_epoch: OnEpoch | None = None,
    progress: Storage | None = None,
    chosen: Chosen | None = None,
) -> TableResult:
    """Train, choose, refit, test once and save below run/tables; an interrupted training goes on where it was.

    progress: folder of the checkpoints, kept for other tables with the same mask and seed; by default one of its own,
    deleted behind the test. chosen: what `choose` has found already. Raises FitError for a loss that is not finite.
    """
    folder = progress or run.child("progress", compressed.name)
    if chosen is None or (chosen.result is None and not refit):
        chosen = choose(data, compressed, config, folder, on_epoch)
    tested = test_once(data, compressed, config, chosen, folder, refit, on_epoch)
    result = table_result(data, compressed, config, chosen, tested)
    record_results(run, compressed.name, result)
    save_table(data, compressed, config, chosen, tested, run.child("tables", compressed.name))
    if progress is None:
        folder.delete()
    return result


def test_once(
    data: Interactions,
    compressed: Compressed,
    config: RecommenderConfig,
    chosen: Chosen,
    progress: Storage,
    refit: bool = True,
    on_epoch: OnEpoch | None = None,
) -> Tested:
    """Train on training and validation data for the chosen epochs, unless `refit` is off, and rank on test.

    progress: folder of the checkpoint of that training. Raises FitError for a loss that is not finite.
    """
    trained_on, final, seconds = data, chosen.result, chosen.seconds
    if refit:
        trained_on = data.merged()
        final = fit(trained_on, _request(compressed, config, "refit", chosen.epoch, progress, on_epoch))
        seconds += final.fit_seconds
    assert final is not None
    return Tested(final, trained_on, test_metrics(trained_on, config, final), seconds, refit)


def table_result(
    data: Interactions, compressed: Compressed, config: RecommenderConfig, chosen: Chosen, tested: Tested
) -> TableResult:
    """What the trained table is worth, for results.parquet and per_user.parquet."""
    tables = tested.final.recommender.backbone.tables
    rows = _rows(data, compressed, config, chosen, tested.metrics, tables, tested.seconds)
    return TableResult(rows, _per_user(compressed, data, tested.metrics))


def save_table(
    data: Interactions,
    compressed: Compressed,
    config: RecommenderConfig,
    chosen: Chosen,
    tested: Tested,
    place: Storage,
) -> None:
    """Save the compressed table in a folder, its card.json last."""
    place.write_table("history.parquet", history_table(chosen.history))
    card = {
        "method": compressed.method,
        "target_sparsity": None if compressed.target_sparsity is None else float(compressed.target_sparsity),
        "seed": compressed.seed,
        "flag": compressed.flag,
        "epochs": chosen.epoch,
        "trained_on": "train+valid" if tested.refit else "train",
        "seconds": round(tested.seconds, 1),
        "validation": chosen.means,
        "test": tested.metrics.means() | {"quality": tested.metrics.mean_quality()},
        **({"search": dict(compressed.search)} if compressed.search else {}),
    }
    CompressedTable.from_fit(data, tested.trained_on, config, compressed.mask, tested.final, card).save(place)


def _request(
    compressed: Compressed,
    config: RecommenderConfig,
    stage: str,
    epochs: int | None,
    progress: Storage,
    on_epoch: OnEpoch | None,
) -> FitRequest:
    return FitRequest(
        config,
        compressed.mask,
        compressed.seed,
        epochs=epochs,
        evaluate=False,
        initial=compressed.initial,
        decoder=compressed.decoder,
        progress=progress.child(stage),
        on_epoch=None if on_epoch is None else lambda record: on_epoch(compressed.name, stage, record),
    )


def test_metrics(trained_on: Interactions, config: RecommenderConfig, result: FitResult) -> UserMetrics:
    """Metrics on test, hiding what the model was trained on. To be called once a table."""
    with cpu_threads(config.threads):
        prepared = prepare(trained_on, resolve_device(config.device))
        return evaluate(
            result.recommender.score_users,
            [prepared.lookup("train"), prepared.lookup("valid")],
            prepared.lookup("test"),
            result.recommender.backbone.floats_per_score,
        )


def record_results(run: Storage, name: str, result: TableResult) -> None:
    """Put a table's rows into results.parquet and per_user.parquet, in the place of older ones of that table."""
    for file, schema, rows in (
        ("results.parquet", RESULTS, pa.Table.from_pylist(result.rows, schema=RESULTS)),
        ("per_user.parquet", PER_USER, result.per_user),
    ):
        tables = [rows]
        if run.exists(file):
            tables.insert(0, _without(run.read_table(file), name))
        run.write_table(file, pa.concat_tables(tables).cast(schema))


def forget_table(run: Storage, name: str) -> None:
    """Remove a table and its rows of results.parquet and per_user.parquet; it is no error if there is none."""
    run.delete(f"tables/{name}")
    for file in ("results.parquet", "per_user.parquet"):
        if run.exists(file) and len(left := _without(table := run.read_table(file), name)) < len(table):
            run.write_table(file, left)


def _without(rows: pa.Table, name: str) -> pa.Table:
    return rows.filter(pa.array(np.array(rows["candidate"].to_pylist(), dtype=object) != name, pa.bool_()))


def _rows(
    data: Interactions,
    compressed: Compressed,
    config: RecommenderConfig,
    chosen: Chosen,
    test: UserMetrics,
    tables: int,
    seconds: float,
) -> list[dict[str, Any]]:
    mask = compressed.mask
    common = {
        **{name: value for name, value in compressed.search.items() if name in RESULTS.names},
        "method": compressed.method,
        "candidate": compressed.name,
        "backbone": config.backbone,
        "dataset": data.name,
        "target_sparsity": None if compressed.target_sparsity is None else float(compressed.target_sparsity),
        "sparsity": float(sparsity(mask)),
        "kept_parameters": mask.kept * (tables if isinstance(mask, PrefixMask) else 1),
        "seed": compressed.seed,
        "split_seed": data.split_seed,
        "epochs": chosen.epoch,
        "seconds": seconds,
        "flag": compressed.flag,
    }
    rows = []
    for split, means in (("valid", chosen.means), ("test", test.means() | {"quality": test.mean_quality()})):
        rows.append(common | {"split": split, "metric": "quality", "k": None, "value": means["quality"]})
        for name, value in means.items():
            if name != "quality":
                metric, cutoff = name.split("@")
                rows.append(common | {"split": split, "metric": metric, "k": int(cutoff), "value": value})
    return rows


def _per_user(compressed: Compressed, data: Interactions, test: UserMetrics) -> pa.Table:
    users = np.flatnonzero(test.counted)
    target = None if compressed.target_sparsity is None else float(compressed.target_sparsity)
    count = len(users)
    columns: Sequence[Any] = [
        pa.repeat(pa.scalar(compressed.name), count),
        pa.repeat(pa.scalar(compressed.method), count),
        pa.repeat(pa.scalar(target, pa.float64()), count),
        pa.repeat(pa.scalar(compressed.seed, pa.int64()), count),
        pa.array(users, pa.int64()),
        pa.array(test.quality()[users], pa.float32()),
    ]
    return pa.Table.from_arrays(columns, schema=PER_USER)
