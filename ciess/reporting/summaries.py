"""What results.parquet says of each method, gathered over seeds."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ciess.errors import RunDirectoryError
from ciess.storage.columns import PER_USER, RESULTS
from ciess.storage.storage import Storage, read_columns

METHOD_ORDER = ("full", "equal", "mixed", "sized", "ciess", "pep", "esapn", "optembed")
"""Order of methods in tables and figures; others follow by name."""

# What makes two tables of one method and target something else than two seeds of one thing.
_SETTINGS = ("budget_mode", "memory_weight", "noise", "random_walk", "walk_weights", "split_seed")


@dataclass(frozen=True)
class Estimate:
    """Mean over `count` seeds; sd: sample standard deviation (n - 1), None with one seed."""

    mean: float
    sd: float | None
    count: int


@dataclass(frozen=True)
class Summary:
    """One method at one target, over its seeds.

    Attributes:
        label: the method, with the settings in which this one differs from others of the method in the same results.
        target_sparsity: share to remove, None where the method has no target.
        sparsities: one a seed, in the order of seeds.
        kept_parameters: one a seed, in the order of seeds.
        epochs: one a seed, in the order of seeds.
        flags: (flag, seeds that carry it).
        metrics: by (split, metric, k).
        starts: `start-loss` of the trainings, each once.
    """

    dataset: str
    backbone: str
    method: str
    label: str
    target_sparsity: float | None
    noise: str | None
    random_walk: bool | None
    seeds: tuple[int, ...]
    sparsities: tuple[float, ...]
    kept_parameters: tuple[int, ...]
    epochs: tuple[int, ...]
    flags: tuple[tuple[str, tuple[int, ...]], ...]
    metrics: dict[tuple[str, str, int | None], Estimate]
    starts: tuple[str, ...] = ()


def read_results(storage: Storage) -> pa.Table:
    """results.parquet of a run directory.

    Raises:
        RunDirectoryError: it is missing, cannot be read, lacks columns or has no rows.
    """
    table = read_columns(storage, "results.parquet", RESULTS)
    if not len(table):
        raise RunDirectoryError(
            f"{storage.path('results.parquet')} has no rows, but a report needs at least one finished table. "
            "Finish the run first: the same command again goes on where it stopped."
        )
    return table


def read_per_user(storage: Storage) -> pa.Table | None:
    """per_user.parquet of a run directory, None where it has none.

    Raises:
        RunDirectoryError: as read_results does.
    """
    return read_columns(storage, "per_user.parquet", PER_USER) if storage.exists("per_user.parquet") else None


def method_rank(method: str) -> tuple[int, str]:
    """Sort key of methods."""
    return (METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)), method


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and sample standard deviation of one value a seed."""
    array = np.asarray(values, dtype=np.float64)
    return Estimate(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None, len(array))


def summarise(results: pa.Table) -> list[Summary]:
    """Rows of results.parquet, gathered over seeds: by data set and backbone, then target sparsity, then method.

    Tables of one method and target whose settings differ stay apart.

    Raises:
        RunDirectoryError: a table has two values for one split, metric and k.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in results.to_pylist():
        variant = variant_of(row["candidate"], row["target_sparsity"], row["seed"])
        settings = (("variant", variant), *((name, row[name]) for name in _SETTINGS))
        key = (row["dataset"], row["backbone"], row["method"], row["target_sparsity"], settings)
        groups.setdefault(key, []).append(row)
    summaries = [_summary(rows, _label(key, groups)) for key, rows in groups.items()]
    return sorted(
        summaries,
        key=lambda s: (s.dataset, s.backbone, target_rank(s.target_sparsity), method_rank(s.method), s.label),
    )


def target_rank(target: float | None) -> float:
    """Sort key of target sparsities: tables without one first."""
    return -1.0 if target is None else target


def variant_of(candidate: str, target_sparsity: float | None, seed: int) -> str:
    """Name of a table without its budget and seed: `equal-round` for `equal-c90-round-s0`."""
    name = candidate.removesuffix(f"-s{seed}")
    return name if target_sparsity is None else re.sub(f"-c{100 * target_sparsity:g}(?=-|$)", "", name, count=1)


def _label(key: tuple[Any, ...], keys: Iterable[tuple[Any, ...]]) -> str:
    """The method, and the settings that are not the same in all of its groups."""
    *_, method, _target, settings = key
    others = [other[4] for other in keys if other[:3] == key[:3]]
    parts = [method]
    for position, (name, value) in enumerate(settings):
        if len({other[position] for other in others}) > 1:
            parts.append(f"{name}={value}" if name != "variant" else str(value).removeprefix(method).lstrip("-"))
    return " ".join(part for part in parts if part)


def _summary(rows: list[dict[str, Any]], label: str) -> Summary:
    by_seed = {row["seed"]: row for row in sorted(rows, key=lambda row: row["seed"])}
    values: dict[tuple[str, str, int | None], dict[int, float]] = {}
    flags: dict[str, set[int]] = {}
    for row in rows:
        key = (row["split"], row["metric"], row["k"])
        if row["seed"] in values.setdefault(key, {}):
            at = "" if row["k"] is None else f"@{row['k']}"
            raise RunDirectoryError(
                f"results.parquet holds {row['split']} {row['metric']}{at} of {row['candidate']} twice; one value a "
                "table, split, metric and k was expected. Keep the rows of one run, or run again with --overwrite."
            )
        values[key][row["seed"]] = row["value"]
        if row["flag"]:
            flags.setdefault(row["flag"], set()).add(row["seed"])
    first, tables = rows[0], list(by_seed.values())
    return Summary(
        **{name: first[name] for name in ("dataset", "backbone", "method", "target_sparsity", "noise", "random_walk")},
        label=label,
        seeds=tuple(by_seed),
        sparsities=tuple(row["sparsity"] for row in tables),
        kept_parameters=tuple(row["kept_parameters"] for row in tables),
        epochs=tuple(row["epochs"] for row in tables),
        flags=tuple((flag, tuple(sorted(seeds))) for flag, seeds in sorted(flags.items())),
        metrics={key: estimate(list(by_key.values())) for key, by_key in values.items()},
        starts=tuple(dict.fromkeys(f"{row['start']} {row['loss']}" for row in tables if row["start"] is not None)),
    )
