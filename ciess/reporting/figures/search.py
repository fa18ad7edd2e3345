"""Every figure that the run directory of a search has the data for."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.numpy import load

from ciess.errors import BudgetError, RunDirectoryError
from ciess.masks.budget import sparsity
from ciess.masks.mask import PrefixMask
from ciess.reporting.figures.halves import halves
from ciess.reporting.figures.history import episodes, iterations
from ciess.reporting.figures.masks import Allocation, Retrained, allocation, visited
from ciess.reporting.summaries import read_results, variant_of
from ciess.search.candidates import Candidate, from_table, select
from ciess.storage.columns import CANDIDATES, EQUAL_WON, HISTORY
from ciess.storage.storage import Storage, read_columns


@dataclass(frozen=True)
class _Table:
    """A retrained table. kind: its name without budget and seed, `ciess` for the one to take for its budget."""

    name: str
    kind: str
    method: str
    target: float | None
    flag: str
    sparsity: float
    quality: float

    @property
    def shown(self) -> Retrained:
        words = (self.method, self.kind.removeprefix(self.method).lstrip("-"), self.flag and f"({self.flag})")
        return Retrained(" ".join(filter(None, words)), self.sparsity, self.quality, self.kind == "ciess")


def draw_search(
    storage: Storage,
    n_users: int,
    degrees: npt.NDArray[np.int64] | None = None,
    budgets: tuple[float, ...] = (),
    beside: Storage | None = None,
) -> dict[str, Figure]:
    """Figures by name; those whose files are not there or hold no rows are left out.

    `search` and `iterations` are from history.parquet, of searches with agents; `halves` of those that choose on other
    pairs than they search by; `visited` is from candidates.parquet, with what results.parquet
    and reference/metrics.json add. `allocation` shows the best mask for each budget, one that was retrained where there
    is one (weights.safetensors of its table), else by its short fit; it needs candidates.parquet, and leaves out equal
    sizes.

    Args:
        storage: run directory.
        n_users: number of users.
        degrees: training interactions of each row, int64[n], users first; None goes without the allocation.
        budgets: sparsities whose best masks are shown beside those that were retrained.
        beside: run directory of another search, whose episodes stand beside these, for instance one without random
            walk.

    Returns:
        the figures.

    Raises:
        RunDirectoryError: a file cannot be used, or the degrees are of other data.
    """
    figures: dict[str, Figure] = {}
    history = _rows(storage, "history.parquet", HISTORY)
    if history is not None:
        other = None if beside is None else _rows(beside, "history.parquet", HISTORY)
        if beside is not None and other is None:
            raise RunDirectoryError(
                f"{beside.root} holds no history of a search: history.parquet is missing or has no rows. Expected the "
                "run directory of a search that has finished an iteration. Check the path."
            )
        labels = (storage.location, "" if beside is None else beside.location)
        if history["iteration"].to_numpy().max() > 1 or history["choice_quality"].null_count:
            # Generations have no agents to be shown.
            figures |= {"search": episodes(history, other, labels), "iterations": iterations(history)}
    candidates = _rows(storage, "candidates.parquet", CANDIDATES)
    if candidates is None:
        return figures
    tables = _tables(read_results(storage)) if storage.exists("results.parquet") else []
    if history is not None and not history["choice_quality"].null_count:
        figures["halves"] = halves(history, candidates)
    figures["visited"] = visited(candidates, [table.shown for table in tables], _reference_quality(storage))
    if degrees is not None:
        groups = _allocations(storage, candidates, tables, degrees, n_users, budgets)
        if groups:
            figures["allocation"] = allocation(groups)
    return figures


def _rows(storage: Storage, name: str, schema: pa.Schema) -> pa.Table | None:
    """The file's columns of this schema, None where it is missing or has no rows."""
    if not storage.exists(name):
        return None
    advice = "Restore the file, or move it away to go without its figures."
    table = read_columns(storage, name, schema, advice)
    return table if len(table) else None


def _reference_quality(storage: Storage) -> float | None:
    name = "reference/metrics.json"
    if not storage.exists(name):
        return None
    try:
        return float(storage.read_json(name)["metrics"]["quality"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{storage.path(name)} does not say how good the reference is ({type(error).__name__}: {error}); JSON with "
            "a number at metrics.quality was expected. Restore the file, or move it away to go without its line."
        ) from error


def _tables(results: pa.Table) -> list[_Table]:
    """The rows of results.parquet that say how good a table is on validation (Eq. 8)."""
    return [
        _Table(
            name=row["candidate"],
            kind=variant_of(row["candidate"], row["target_sparsity"], row["seed"]),
            method=row["method"],
            target=row["target_sparsity"],
            flag=row["flag"] or "",
            sparsity=row["sparsity"],
            quality=row["value"],
        )
        for row in results.to_pylist()
        if (row["split"], row["metric"]) == ("valid", "quality")
    ]


def _best_learned(tables: list[_Table]) -> dict[float, _Table]:
    """By target, the table of a searched mask that is best on validation."""
    best: dict[float, _Table] = {}
    for table in sorted(tables, key=lambda table: table.quality):
        if table.method == "ciess" and table.target is not None and EQUAL_WON not in table.flag:
            best[table.target] = table
    return best


def _allocations(
    storage: Storage,
    candidates: pa.Table,
    tables: list[_Table],
    degrees: npt.NDArray[np.int64],
    n_users: int,
    budgets: tuple[float, ...],
) -> list[Allocation]:
    """The best mask for each budget for which there is one, by rising budget."""
    found = _candidates(storage, candidates)
    n, max_size = len(found[0].mask.sizes), found[0].mask.max_size
    if len(degrees) != n or not 0 < n_users < n:
        raise RunDirectoryError(
            f"{storage.path('candidates.parquet')} holds masks of {n:,} rows, but the data has {n_users:,} users and "
            f"{len(degrees) - n_users:,} items; as many rows as users and items were expected. Give the data of this "
            "run."
        )
    searched = [candidate for candidate in found if candidate.origin == "search"]
    best = _best_learned(tables)
    groups = []
    for budget in sorted({*budgets, *best}):
        if budget in best and storage.exists(_weights(best[budget])):
            mask, how = _retrained_mask(storage, best[budget], n, max_size), "retrained"
        elif chosen := select(searched, budget, 1):
            mask, how = chosen[0].mask, "by its short fit"
        else:
            continue
        groups.append(Allocation(f"best for {100 * budget:g} %, {how}", mask, degrees, n_users))
    return groups


def _candidates(storage: Storage, table: pa.Table) -> list[Candidate]:
    """The candidates of the file, at least one row; max_size is what their sparsities were counted from."""
    try:
        lengths = {len(sizes) for sizes in table["sizes"]}
        if len(lengths) > 1:
            raise ValueError(f"from {min(lengths)} to {max(lengths)} of them in a row")
        kept, entries = sum(table["sizes"][0].as_py()), len(table["sizes"][0]) * (1 - table["sparsity"][0].as_py())
        found = from_table(table, round(kept / entries))
        if any(float(sparsity(candidate.mask)) != candidate.sparsity for candidate in found):
            raise ValueError(f"not all of up to {found[0].mask.max_size} dimensions")
        return found
    except (BudgetError, ValueError, TypeError, ZeroDivisionError) as error:
        raise RunDirectoryError(
            f"{storage.path('candidates.parquet')} holds sizes that do not fit together ({error}); as many in each "
            "row, and their own sparsity beside them, were expected. Restore the file, or move it away to go without "
            "its figures."
        ) from error


def _weights(table: _Table) -> str:
    return f"tables/{table.name}/weights.safetensors"


def _retrained_mask(storage: Storage, table: _Table, n: int, max_size: int) -> PrefixMask:
    path = storage.path(_weights(table))
    try:
        mask = PrefixMask(load(storage.read_bytes(_weights(table)))["sizes"], max_size)
    except (SafetensorError, KeyError, BudgetError) as error:
        raise RunDirectoryError(
            f"{path} is not a table of sizes up to {max_size} ({error}); safetensors with `sizes` were expected. "
            "Restore the file, or retrain that table."
        ) from error
    if len(mask.sizes) != n:
        raise RunDirectoryError(
            f"{path} has {len(mask.sizes):,} rows, but {n:,} were expected, as in candidates.parquet. Restore the "
            "file, or retrain that table."
        )
    return mask
