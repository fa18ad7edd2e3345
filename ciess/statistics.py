"""What results.parquet and per_user.parquet say: means over seeds, and paired tests over users."""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import stats

from ciess.errors import RunDirectoryError
from ciess.results import PER_USER, RESULTS
from ciess.storage import Storage

METHOD_ORDER = ("full", "equal", "mixed", "ciess", "pep", "esapn", "optembed")
"""Order of methods in tables and figures; others follow by name."""

CONFIDENCE = 0.95
"""Level of the intervals."""

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

    label: the method, with the settings in which this one differs from others of the method in the same results.
    target_sparsity: share to remove, None where the method has no target. sparsities, kept_parameters, epochs: one a
    seed, in the order of seeds. flags: (flag, seeds that carry it). metrics: by (split, metric, k).
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


@dataclass(frozen=True)
class PairedTest:
    """Two-sided tests of the difference first - second in per-user quality (Eq. 8 on test, averaged over seeds).

    target_sparsity: that of the methods; with a full table on one side that of the other side.
    low, high: 95 % interval of mean_difference (Student's t). effect_size: Cohen's d_z, the mean over the standard
    deviation of the differences. t_p: paired t test; wilcoxon_p: signed ranks, users without a difference left out;
    *_holm: the same, corrected over all tests returned together. seeds: how many each side is averaged over.
    """

    first: str
    second: str
    target_sparsity: float | None
    n_users: int
    seeds: tuple[int, int]
    mean_difference: float
    low: float
    high: float
    effect_size: float
    t_p: float
    wilcoxon_p: float
    t_p_holm: float
    wilcoxon_p_holm: float


def read_results(storage: Storage) -> pa.Table:
    """results.parquet of a run directory.

    Raises RunDirectoryError where it is missing, cannot be read, lacks columns or has no rows.
    """
    table = _read(storage, "results.parquet", RESULTS)
    if not len(table):
        raise RunDirectoryError(
            f"{storage.path('results.parquet')} has no rows, but a report needs at least one finished table. "
            "Finish the run first: the same command again goes on where it stopped."
        )
    return table


def read_per_user(storage: Storage) -> pa.Table | None:
    """per_user.parquet of a run directory, None where it has none. Raises RunDirectoryError as read_results does."""
    return _read(storage, "per_user.parquet", PER_USER) if storage.exists("per_user.parquet") else None


def method_rank(method: str) -> tuple[int, str]:
    """Sort key of methods."""
    return (METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)), method


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and sample standard deviation of one value a seed."""
    array = np.asarray(values, dtype=np.float64)
    return Estimate(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None, len(array))


def summarise(results: pa.Table) -> list[Summary]:
    """Rows of results.parquet, gathered over seeds: by data set and backbone, then target sparsity, then method.

    Tables of one method and target whose settings differ stay apart. Raises RunDirectoryError where a table has two
    values for one split, metric and k.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in results.to_pylist():
        variant = _variant(row["candidate"], row["target_sparsity"], row["seed"])
        settings = (("variant", variant), *((name, row[name]) for name in _SETTINGS))
        key = (row["dataset"], row["backbone"], row["method"], row["target_sparsity"], settings)
        groups.setdefault(key, []).append(row)
    summaries = [_summary(rows, _label(key, groups)) for key, rows in groups.items()]
    return sorted(
        summaries,
        key=lambda s: (s.dataset, s.backbone, _target_rank(s.target_sparsity), method_rank(s.method), s.label),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction, in the order given: the i-th smallest of m times m - i + 1, never falling."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in corrected]


def paired_tests(per_user: pa.Table, reference: str | None = None) -> list[PairedTest]:
    """Test methods at the same target sparsity against each other, and the full table against each.

    reference: a method; only its pairs are then tested. Users are paired by code. The tests are over users and take
    the trained tables as given: how much another training seed would change them is in the deviation over seeds.
    Raises RunDirectoryError where tables were tested on different users, a user stands twice in a table, a quality
    is not a number, or no table is of the reference.
    """
    sides = _sides(per_user)
    if reference is not None and reference not in {side.method for side in sides}:
        found = ", ".join(sorted({side.method for side in sides})) or "none"
        raise RunDirectoryError(
            f"per_user.parquet has no table of method {reference}; its methods are: {found}. Choose one of these."
        )
    pairs = [
        (first, second)
        for first, second in itertools.combinations(sides, 2)
        if (first.target == second.target or first.method == "full")
        and (reference is None or reference in (first.method, second.method))
    ]
    pairs.sort(key=lambda pair: (_target_rank(pair[1].target), pair[0].method == "full"))
    tests = [_compare(first, second) for first, second in pairs]
    t_holm = holm([test["t_p"] for test in tests])
    wilcoxon_holm = holm([test["wilcoxon_p"] for test in tests])
    return [
        PairedTest(**test, t_p_holm=t, wilcoxon_p_holm=wilcoxon)
        for test, t, wilcoxon in zip(tests, t_holm, wilcoxon_holm, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Side:
    method: str
    label: str
    target: float | None
    candidate: str
    seeds: int
    users: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float64]


def _read(storage: Storage, name: str, schema: pa.Schema) -> pa.Table:
    if not storage.exists(name):
        raise RunDirectoryError(
            f"{storage.location} holds no {name}; a run directory with a finished table was expected. "
            "Check the path, or write one with `ciess fit DATA --out DIR`."
        )
    try:
        table = storage.read_table(name)
    except (ValueError, OSError) as error:
        raise RunDirectoryError(
            f"{storage.path(name)} is not a Parquet file that can be read ({error}). "
            "Restore the file, or run again with --overwrite."
        ) from error
    missing = [column for column in schema.names if column not in table.column_names]
    if missing:
        raise RunDirectoryError(
            f"{storage.path(name)} lacks the columns {', '.join(missing)}; the columns {', '.join(schema.names)} were "
            "expected. The file is of another program or version: run again with --overwrite."
        )
    return table


def _target_rank(target: float | None) -> float:
    return -1.0 if target is None else target


def _variant(candidate: str, target_sparsity: float | None, seed: int) -> str:
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
    )


def _sides(per_user: pa.Table) -> list[_Side]:
    """One side a method, variant and target, its qualities averaged over seeds; full tables first."""
    if not len(per_user):
        return []
    names = per_user["candidate"].combine_chunks().dictionary_encode()
    users = per_user["user"].to_numpy()
    quality = per_user["quality"].to_numpy().astype(np.float64)
    if bad := int((~np.isfinite(quality)).sum()):
        raise RunDirectoryError(
            f"per_user.parquet holds {bad} qualities that are not finite numbers; numbers in [0, 1] were expected. "
            "Run again with --overwrite."
        )
    codes = names.indices.to_numpy()
    order = np.lexsort((users, codes))
    tables: dict[tuple[str, float | None, str], list[tuple[str, npt.NDArray[np.int64]]]] = {}
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        head = per_user.slice(int(rows[0]), 1).to_pylist()[0]
        if (np.diff(users[rows]) == 0).any():
            raise RunDirectoryError(
                f"per_user.parquet holds a user of table {head['candidate']} twice; one row a table and user was "
                "expected. Keep the rows of one run, or run again with --overwrite."
            )
        key = (
            head["method"],
            head["target_sparsity"],
            _variant(head["candidate"], head["target_sparsity"], head["seed"]),
        )
        tables.setdefault(key, []).append((head["candidate"], rows))
    sides = []
    for (method, target, variant), parts in tables.items():
        alone = sum(other[:2] == (method, target) for other in tables) == 1
        candidate, rows = parts[0]
        for other, other_rows in parts[1:]:
            _check_same_users(candidate, users[rows], other, users[other_rows])
        mean = np.mean([quality[rows] for _, rows in parts], axis=0)
        label = method if alone else variant
        sides.append(_Side(method, label, target, candidate, len(parts), users[rows], mean))
    return sorted(sides, key=lambda side: (method_rank(side.method), side.label, _target_rank(side.target)))


def _check_same_users(
    first: str, first_users: npt.NDArray[np.int64], second: str, second_users: npt.NDArray[np.int64]
) -> None:
    if not np.array_equal(first_users, second_users):
        shared = len(np.intersect1d(first_users, second_users))
        raise RunDirectoryError(
            f"Tables {first} and {second} were tested on different users ({len(first_users)} and {len(second_users)}, "
            f"{shared} of them the same); a paired test needs the same users. Fit both on the same data and split."
        )


def _compare(first: _Side, second: _Side) -> dict[str, Any]:
    _check_same_users(first.candidate, first.users, second.candidate, second.users)
    differences = first.quality - second.quality
    count = len(differences)
    mean = float(differences.mean())
    # Differences that are all the same have no spread to divide by; rounding must not make one up.
    spread = float(differences.std(ddof=1)) if count > 1 and np.ptp(differences) > 0 else 0.0
    if count < 2:
        half_width, effect, t_p = math.inf, math.nan, 1.0
    elif spread == 0:
        half_width, effect, t_p = 0.0, (math.copysign(math.inf, mean) if mean else 0.0), float(mean == 0)
    else:
        error = spread / math.sqrt(count)
        half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
        effect = mean / spread
        t_p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    return {
        "first": first.label,
        "second": second.label,
        "target_sparsity": second.target,
        "n_users": count,
        "seeds": (first.seeds, second.seeds),
        "mean_difference": mean,
        "low": mean - half_width,
        "high": mean + half_width,
        "effect_size": effect,
        "t_p": t_p,
        "wilcoxon_p": float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0,
    }
