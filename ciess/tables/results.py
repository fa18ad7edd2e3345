"""Rows of results.parquet and per_user.parquet of a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.evaluation.metrics import CUTOFFS, UserMetrics
from ciess.evaluation.sample import evaluated_users
from ciess.masks.budget import sparsity
from ciess.masks.mask import PrefixMask, row_sizes
from ciess.storage.columns import PER_USER, RESULTS
from ciess.storage.storage import Storage, read_columns
from ciess.tables.spec import TableSpec
from ciess.tables.trials import Trial
from ciess.training.fit import FitResult
from ciess.training.history import EpochRecord


@dataclass(frozen=True, eq=False)
class Chosen:
    """A full training on the training part, at the epoch that validation chose.

    Attributes:
        user_quality: Eq. 8 on validation, or on its half that is chosen by, float32[n_users].
        means: of every metric by name, and `quality`, that of Eq. 8.
        epoch: the chosen one.
        seconds: of training and evaluation.
        result: None where only the figures are left.
        trial: the start and the training that validation chose.
        choice: mean of Eq. 8 on the half that is chosen by, None where all of validation is.
    """

    user_quality: npt.NDArray[np.float32]
    means: dict[str, float]
    epoch: int
    history: tuple[EpochRecord, ...]
    seconds: float
    result: FitResult | None = None
    trial: Trial | None = None
    choice: float | None = None


@dataclass(frozen=True, eq=False)
class Tested:
    """The model that is saved, and its metrics on test, which it was ranked on this one time.

    Attributes:
        trained_on: what it knows.
        seconds: of all trainings.
        refit: whether that holds the validation data.
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


def table_result(
    data: Interactions, spec: TableSpec, config: RecommenderConfig, chosen: Chosen, tested: Tested
) -> TableResult:
    """What the trained table is worth, for results.parquet and per_user.parquet."""
    tables = tested.final.recommender.backbone.tables
    rows = _rows(data, spec, config, chosen, tested.metrics, tables, tested.seconds)
    return TableResult(rows, _per_user(spec, data, tested.metrics))


def record_results(run: Storage, name: str, result: TableResult) -> None:
    """Put a table's rows into results.parquet and per_user.parquet, in the place of older ones of that table."""
    for file, schema, rows in (
        ("results.parquet", RESULTS, pa.Table.from_pylist(result.rows, schema=RESULTS)),
        ("per_user.parquet", PER_USER, result.per_user),
    ):
        tables = [rows]
        if run.exists(file):
            tables.insert(0, _without(read_columns(run, file, schema), name))
        run.write_table(file, pa.concat_tables(tables).cast(schema))


def forget_table(run: Storage, name: str) -> None:
    """Remove a table and its rows of results.parquet and per_user.parquet; it is no error if there is none."""
    run.delete(f"tables/{name}")
    for file, schema in (("results.parquet", RESULTS), ("per_user.parquet", PER_USER)):
        if run.exists(file):
            rows = read_columns(run, file, schema)
            if len(left := _without(rows, name)) < len(rows):
                run.write_table(file, left)


def _without(rows: pa.Table, name: str) -> pa.Table:
    return rows.filter(pa.array(np.array(rows["candidate"].to_pylist(), dtype=object) != name, pa.bool_()))


def _rows(
    data: Interactions,
    spec: TableSpec,
    config: RecommenderConfig,
    chosen: Chosen,
    test: UserMetrics,
    tables: int,
    seconds: float,
) -> list[dict[str, Any]]:
    mask, trial = spec.mask, chosen.trial
    common = {
        **{name: value for name, value in spec.search.items() if name in RESULTS.names},
        "method": spec.method,
        "candidate": spec.name,
        "backbone": config.backbone,
        "dataset": data.name,
        "target_sparsity": None if spec.target_sparsity is None else float(spec.target_sparsity),
        "sparsity": float(sparsity(mask)),
        "kept_parameters": mask.kept * (tables if isinstance(mask, PrefixMask) else 1),
        "seed": spec.seed,
        "split_seed": data.split_seed,
        "epochs": chosen.epoch,
        "seconds": seconds,
        "flag": spec.flag,
        "role": spec.role,
        "start": None if trial is None else trial.described()["start"]["name"],
        "loss": None if trial is None else trial.training.loss,
    }
    rows = []
    for split, means in (("valid", chosen.means), ("test", test.means() | {"quality": test.mean_quality()})):
        rows.append(common | {"split": split, "metric": "quality", "k": None, "value": means["quality"]})
        for name, value in means.items():
            if name != "quality":
                metric, cutoff = name.split("@")
                rows.append(common | {"split": split, "metric": metric, "k": int(cutoff), "value": value})
    beside: list[tuple[str, int | None, float]] = [
        ("ItemRows", None, float((row_sizes(mask)[data.n_users :] > 0).mean()))
    ]
    beside += [] if test.coverage is None else [("Coverage", max(CUTOFFS), test.coverage)]
    if evaluated_users(data.n_users, config.evaluate_users) is not None:
        beside.append(("Interval", None, test.interval()))
    rows += [common | {"split": "test", "metric": name, "k": k, "value": value} for name, k, value in beside]
    return rows


def _per_user(spec: TableSpec, data: Interactions, test: UserMetrics) -> pa.Table:
    users = np.flatnonzero(test.counted)
    target = None if spec.target_sparsity is None else float(spec.target_sparsity)
    count = len(users)
    columns: Sequence[Any] = [
        pa.repeat(pa.scalar(spec.name), count),
        pa.repeat(pa.scalar(spec.method), count),
        pa.repeat(pa.scalar(target, pa.float64()), count),
        pa.repeat(pa.scalar(spec.seed, pa.int64()), count),
        pa.array(users, pa.int64()),
        pa.array(test.quality()[users], pa.float32()),
    ]
    return pa.Table.from_arrays(columns, schema=PER_USER)
