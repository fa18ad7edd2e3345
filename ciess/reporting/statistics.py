"""Paired tests over users between methods (per_user.parquet)."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import stats

from ciess.errors import RunDirectoryError
from ciess.reporting.summaries import method_rank, target_rank, variant_of

CONFIDENCE = 0.95
"""Level of the intervals."""


@dataclass(frozen=True)
class PairedTest:
    """Two-sided tests of the difference first - second in per-user quality (Eq. 8 on test, averaged over seeds).

    Attributes:
        first: label of the one side.
        second: label of the other side.
        target_sparsity: that of the methods; with a full table on one side that of the other side.
        n_users: pairs.
        seeds: how many each side is averaged over.
        mean_difference: of the qualities.
        low: lower end of its 95 % interval (Student's t).
        high: upper end of its 95 % interval.
        effect_size: Cohen's d_z, the mean over the standard deviation of the differences.
        t_p: of the paired t test.
        wilcoxon_p: of signed ranks, users without a difference left out.
        t_p_holm: t_p, corrected over all tests returned together.
        wilcoxon_p_holm: wilcoxon_p, corrected likewise.
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


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction, in the order given: the i-th smallest of m times m - i + 1, never falling."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in corrected]


def paired_tests(per_user: pa.Table, reference: str | None = None) -> list[PairedTest]:
    """Test methods at the same target sparsity against each other, and the full table against each.

    Users are paired by code. The tests are over users and take the trained tables as given: how much another training
    seed would change them is in the deviation over seeds.

    Args:
        per_user: rows of PER_USER.
        reference: a method; only the others against it are then tested, it stands second, and those that do not differ
            from it for any user are left out, as tables of the same sizes do.

    Raises:
        RunDirectoryError: tables were tested on different users, a user stands twice in a table, a quality is not a
            number, or no table is of the reference.
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
        # Sparsities that are outcomes are no common target.
        if (first.target == second.target is not None or first.method == "full")
        and (reference is None or reference in (first.method, second.method))
    ]
    pairs.sort(key=lambda pair: (target_rank(pair[1].target), pair[0].method == "full"))
    if reference is not None:
        pairs = [(second, first) if first.method == reference else (first, second) for first, second in pairs]
        pairs = [pair for pair in pairs if not _same(*pair)]
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
            variant_of(head["candidate"], head["target_sparsity"], head["seed"]),
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
    return sorted(sides, key=lambda side: (method_rank(side.method), side.label, target_rank(side.target)))


def _check_same_users(
    first: str, first_users: npt.NDArray[np.int64], second: str, second_users: npt.NDArray[np.int64]
) -> None:
    if not np.array_equal(first_users, second_users):
        shared = len(np.intersect1d(first_users, second_users))
        raise RunDirectoryError(
            f"Tables {first} and {second} were tested on different users ({len(first_users)} and {len(second_users)}, "
            f"{shared} of them the same); a paired test needs the same users. Fit both on the same data and split."
        )


def _same(first: _Side, second: _Side) -> bool:
    return np.array_equal(first.users, second.users) and np.array_equal(first.quality, second.quality)


def _compare(first: _Side, second: _Side) -> dict[str, Any]:
    _check_same_users(first.candidate, first.users, second.candidate, second.users)
    differences = first.quality - second.quality
    count, mean = len(differences), float(differences.mean())
    if count < 2:
        low, high, effect, t_p = -math.inf, math.inf, math.nan, 1.0
    elif np.ptp(differences) == 0:
        # Differences that are all the same have no spread to divide by; rounding must not make one up.
        low, high, effect, t_p = mean, mean, (math.copysign(math.inf, mean) if mean else 0.0), float(mean == 0)
    else:
        test = stats.ttest_rel(first.quality, second.quality)
        low, high = map(float, test.confidence_interval(CONFIDENCE))
        effect, t_p = mean / float(differences.std(ddof=1)), float(test.pvalue)
    return {
        "first": first.label,
        "second": second.label,
        "target_sparsity": first.target if second.target is None else second.target,
        "n_users": count,
        "seeds": (first.seeds, second.seeds),
        "mean_difference": mean,
        "low": low,
        "high": high,
        "effect_size": effect,
        "t_p": t_p,
        "wilcoxon_p": float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0,
    }
