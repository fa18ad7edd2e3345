"""From masks to tested tables, by one protocol for every method (line 17 of Algorithm 1, section 2.3).

Train on training data until validation stops to improve, choose the epoch there; train anew on training and validation
data for as many epochs; rank on test once; save the compressed table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ciess.artifact import CompressedTable
from ciess.checkpoint import EpochRecord
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


@dataclass(frozen=True)
class TableResult:
    """Rows of results.parquet and per_user.parquet of one table."""

    rows: list[dict[str, Any]]
    per_user: pa.Table


def train_table(
    data: Interactions,
    compressed: Compressed,
    config: RecommenderConfig,
    run: Storage,
    refit: bool = True,
    on_epoch: OnEpoch | None = None,
) -> TableResult:
    """Train, choose, refit, test once and save below run/tables; an interrupted training goes on where it was.

    Raises FitError for a loss that is not finite.
    """
    name, progress = compressed.name, run.child("progress", compressed.name)

    def request(stage: str, epochs: int | None) -> FitRequest:
        return FitRequest(
            config,
            compressed.mask,
            compressed.seed,
            epochs=epochs,
            evaluate=False,
            initial=compressed.initial,
            progress=progress.child(stage),
            on_epoch=None if on_epoch is None else lambda record: on_epoch(name, stage, record),
        )

    chosen = fit(data, request("choose", None))
    assert chosen.validation is not None
    trained_on, final = data, chosen
    if refit:
        trained_on = data.merged()
        final = fit(trained_on, request("refit", chosen.best_epoch))
    test = test_metrics(trained_on, config, final)
    seconds = chosen.fit_seconds + chosen.evaluation_seconds + (final.fit_seconds if refit else 0.0)
    result = TableResult(_rows(data, compressed, config, chosen, test, seconds), _per_user(compressed, data, test))
    record_results(run, name, result)
    folder = run.child("tables", name)
    folder.write_table("history.parquet", _history(chosen))
    card = {
        "method": compressed.method,
        "target_sparsity": None if compressed.target_sparsity is None else float(compressed.target_sparsity),
        "seed": compressed.seed,
        "flag": compressed.flag,
        "epochs": chosen.best_epoch,
        "trained_on": "train+valid" if refit else "train",
        "seconds": round(seconds, 1),
        "validation": chosen.validation.means() | {"quality": chosen.validation.mean_quality()},
        "test": test.means() | {"quality": test.mean_quality()},
    }
    CompressedTable.from_fit(data, trained_on, config, compressed.mask, final, card).save(folder)
    progress.delete()
    return result


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
            old = run.read_table(file)
            tables.insert(0, old.filter(pa.array(np.array(old["candidate"].to_pylist(), dtype=object) != name)))
        run.write_table(file, pa.concat_tables(tables).cast(schema))


def _rows(
    data: Interactions,
    compressed: Compressed,
    config: RecommenderConfig,
    chosen: FitResult,
    test: UserMetrics,
    seconds: float,
) -> list[dict[str, Any]]:
    assert chosen.validation is not None
    mask = compressed.mask
    tables = chosen.recommender.backbone.tables if isinstance(mask, PrefixMask) else 1
    common = {
        "method": compressed.method,
        "candidate": compressed.name,
        "backbone": config.backbone,
        "dataset": data.name,
        "target_sparsity": None if compressed.target_sparsity is None else float(compressed.target_sparsity),
        "sparsity": float(sparsity(mask)),
        "kept_parameters": mask.kept * tables,
        "seed": compressed.seed,
        "split_seed": data.split_seed,
        "epochs": chosen.best_epoch,
        "seconds": seconds,
        "flag": compressed.flag,
    }
    rows = []
    for split, metrics in (("valid", chosen.validation), ("test", test)):
        rows.append(common | {"split": split, "metric": "quality", "k": None, "value": metrics.mean_quality()})
        for name, value in metrics.means().items():
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


def _history(result: FitResult) -> pa.Table:
    return pa.table(
        {
            "epoch": pa.array([record.epoch for record in result.history], pa.int64()),
            "loss": pa.array([record.loss for record in result.history], pa.float64()),
            "quality": pa.array([record.quality for record in result.history], pa.float64()),
        }
    )
