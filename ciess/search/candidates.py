"""The masks that a search has visited, and the best of them for a budget (Eq. 15)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess import masks
from ciess.config.search import SearchConfig
from ciess.masks.bounds import SizeBounds
from ciess.masks.mask import PrefixMask
from ciess.search.proposals import Outcome, Proposal, Slot
from ciess.storage.columns import CANDIDATES
from ciess.training.starts.start import FRESH, Start


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mask and what its short fit found; the fields are those of CANDIDATES."""

    episode: int
    iteration: int
    lane: int
    sparsity: float
    quality_ratio: float
    users_quality_ratio: float
    quality: float
    origin: str
    mask: PrefixMask
    choice_quality: float | None = None
    start: Start | None = None

    @property
    def slot(self) -> Slot:
        """Where in the search it stands."""
        return self.lane, self.episode, self.iteration

    @property
    def where(self) -> str:
        """For the reader."""
        if self.origin == "equal":
            return describe_equal(self.mask)
        if self.origin == "sized":
            return "sizes by popularity (sized)"
        return f"episode {self.episode}, iteration {self.iteration}, lane {self.lane}"


def candidate_of(
    proposal: Proposal,
    outcome: Outcome,
    ratios: npt.NDArray[np.float32],
    counted: npt.NDArray[np.bool_],
    max_size: int,
    origin: str,
) -> Candidate:
    """What a search keeps of a told proposal.

    Args:
        proposal: what was fitted.
        outcome: what the fit found.
        ratios: Eq. 7 of every entity, float32[n].
        counted: bool[n_users], users with validation items.
        max_size: columns of the full table, d_max.
        origin: `search`, or `equal` and `sized` for sizes by rule.

    Returns:
        the candidate.
    """
    mask = PrefixMask(proposal.sizes, max_size)
    return Candidate(
        episode=proposal.episode,
        iteration=proposal.iteration,
        lane=proposal.lane,
        sparsity=float(masks.sparsity(mask)),
        quality_ratio=mean(ratios),
        users_quality_ratio=mean(ratios[: len(counted)]),
        quality=mean(outcome.quality[counted]),
        origin=origin,
        mask=mask,
        choice_quality=outcome.choice_quality,
        start=proposal.start,
    )


def mean(values: npt.NDArray[Any]) -> float:
    """Mean in float64, in which all means of a search are taken."""
    return float(values.mean(dtype=np.float64))


def describe_equal(mask: PrefixMask) -> str:
    """Equal sizes for the reader."""
    # Rows that may have none take no part.
    least = int(mask.sizes[mask.sizes > 0].min(initial=mask.max_size))
    return f"equal sizes of {least}" + ("" if mask.width == least else ", one more for the most popular")


def select(
    visited: list[Candidate],
    sparsity: float | str | Fraction,
    count: int,
    by: str = "all",
    buckets: tuple[float, ...] = (),
) -> list[Candidate]:
    """The `count` best masks of `visited` at this budget, best first (Eq. 15); equal ones by the order of visit.

    A mask serves every budget that it keeps, whatever it was made for; masks that were visited twice count once.

    Args:
        visited: masks with what their short fits found.
        sparsity: the budget, share of the table that is removed.
        count: most masks to give.
        by: mean quality ratio over `all` entities (Eq. 16) or `users`, or `choice`: mean quality on the half of
            validation that is chosen by.
        buckets: where given, a mask serves only the largest of these sparsities that it meets (published code).
    """
    bound = masks.exact(sparsity)
    others = [masks.exact(bucket) for bucket in buckets if masks.exact(bucket) > bound]
    found: dict[bytes, Candidate] = {}
    for candidate in visited:
        reached = masks.sparsity(candidate.mask)
        if reached >= bound and not any(reached >= other for other in others):
            found.setdefault(candidate.mask.sizes.tobytes(), candidate)
    return sorted(found.values(), key=lambda candidate: -merit(candidate, by))[:count]


def merit(candidate: Candidate, by: str) -> float:
    """What candidates are ranked by: quality ratios, or quality on the half of validation that is chosen by."""
    if by == "choice":
        return candidate.quality if candidate.choice_quality is None else candidate.choice_quality
    return candidate.quality_ratio if by == "all" else candidate.users_quality_ratio


def sparsest(visited: list[Candidate]) -> Candidate | None:
    """The sparsest mask of all, None where there is none."""
    return max(visited, key=lambda candidate: candidate.sparsity, default=None)


def sized_at(visited: list[Candidate], sparsity: float | str | Fraction) -> Candidate | None:
    """The sizes by popularity that keep a budget and most of it; None where none of `visited` does."""
    bound = masks.exact(sparsity)
    found = [one for one in visited if one.origin == "sized" and masks.sparsity(one.mask) >= bound]
    return min(found, key=lambda candidate: candidate.sparsity, default=None)


def projected(
    candidate: Candidate,
    sparsity: float | str | Fraction,
    degrees: npt.NDArray[np.int64],
    bounds: SizeBounds | None = None,
) -> PrefixMask:
    """The candidate's sizes, projected to a budget that it does not keep.

    Raises:
        BudgetError: none can.
    """
    sizes = candidate.mask.sizes.astype(np.float64)
    return masks.project(sizes, candidate.mask.max_size, sparsity, degrees, bounds)


def best_searched(
    visited: list[Candidate], config: SearchConfig, sparsity: float | str | Fraction, count: int | None = None
) -> list[Candidate]:
    """What `select` gives of the masks that a search has proposed, by the rules of its config."""
    searched = [candidate for candidate in visited if candidate.origin == "search"]
    buckets = config.budgets if config.candidate_buckets else ()
    count = config.candidates if count is None else count
    return select(searched, sparsity, count, config.candidate_quality, buckets)


_NUMBERS = ("exponent", "power", "item_exponent", "item_weight")
"""Of a start, as columns of arrays."""

_NAMES, _SIDES = ("", "fresh", "cut", "projected", "spectral"), ("", "items", "users", "both")
_ORIGINS = ("search", "equal", "sized")


def to_columns(visited: list[Candidate], n: int) -> dict[str, npt.NDArray[Any]]:
    """The candidates as arrays by name, `sizes` as int16[candidates, n]; words as their positions."""
    types: dict[str, npt.DTypeLike] = dict.fromkeys(("episode", "iteration", "lane"), np.int64)
    types |= dict.fromkeys(("sparsity", "quality_ratio", "users_quality_ratio", "quality"), np.float64)
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.array([getattr(candidate, name) for candidate in visited], dtype) for name, dtype in types.items()
    }
    choice = [np.nan if candidate.choice_quality is None else candidate.choice_quality for candidate in visited]
    columns["choice_quality"] = np.array(choice, np.float64)
    columns["origin"] = np.array([_ORIGINS.index(candidate.origin) for candidate in visited], np.int8)
    starts = [candidate.start for candidate in visited]
    columns["start_name"] = np.array([_NAMES.index("" if start is None else start.name) for start in starts], np.int8)
    sides = ["" if start is None else start.side or "" for start in starts]
    columns["start_side"] = np.array([_SIDES.index(side) for side in sides], np.int8)
    for name in _NUMBERS:
        columns[f"start_{name}"] = np.array([getattr(start or FRESH, name) for start in starts], np.float64)
    columns["sizes"] = np.array([candidate.mask.sizes for candidate in visited], np.int16).reshape(-1, n)
    return columns


def from_columns(columns: Mapping[str, npt.NDArray[Any]], max_size: int) -> list[Candidate]:
    """The candidates of such arrays; those of ciess 0.1.0 say `equal` alone.

    Raises:
        BudgetError: sizes above max_size.
    """
    names = ("episode", "iteration", "lane", "sparsity", "quality_ratio", "users_quality_ratio", "quality")
    origins = columns["origin"] if "origin" in columns else columns["equal"].astype(np.int8)
    return [
        Candidate(
            **{name: columns[name][row].item() for name in names},
            origin=_ORIGINS[origins[row]],
            mask=PrefixMask(columns["sizes"][row].copy(), max_size),
            choice_quality=_choice_of(columns, row),
            start=_start_of(columns, row),
        )
        for row in range(len(origins))
    ]


def _choice_of(columns: Mapping[str, npt.NDArray[Any]], row: int) -> float | None:
    value = columns["choice_quality"][row].item() if "choice_quality" in columns else np.nan
    return None if np.isnan(value) else value


def _start_of(columns: Mapping[str, npt.NDArray[Any]], row: int) -> Start | None:
    if "start_name" not in columns or not columns["start_name"][row]:
        return None
    numbers = {name: columns[f"start_{name}"][row].item() for name in _NUMBERS}
    name, side = _NAMES[columns["start_name"][row]], _SIDES[columns["start_side"][row]]
    return Start(name, side or None, **numbers)  # type: ignore[arg-type]


def to_table(visited: list[Candidate], n: int) -> pa.Table:
    """Rows of candidates.parquet."""
    columns = to_columns(visited, n)
    sizes = pa.FixedSizeListArray.from_arrays(pa.array(columns["sizes"].reshape(-1)), n)
    starts = [None if candidate.start is None else json.dumps(candidate.start.described()) for candidate in visited]
    words = {
        "origin": pa.array([candidate.origin for candidate in visited], pa.string()),
        "choice_quality": pa.array([candidate.choice_quality for candidate in visited], pa.float64()),
        "start": pa.array(starts, pa.string()),
        "sizes": sizes,
    }
    plain = {name: values for name, values in columns.items() if name in CANDIDATES.names}
    return pa.table(plain | words).select(CANDIDATES.names).cast(CANDIDATES)


def from_table(table: pa.Table, max_size: int) -> list[Candidate]:
    """The candidates of the rows of candidates.parquet.

    Raises:
        BudgetError: sizes above max_size.
    """
    names = ("episode", "iteration", "lane", "sparsity", "quality_ratio", "users_quality_ratio", "quality")
    columns = {name: table[name].to_numpy() for name in names}
    sizes = table["sizes"].combine_chunks().flatten().to_numpy()
    sizes = sizes.reshape(len(table), -1) if len(table) else np.empty((0, 0), np.int16)
    origins, choices, starts = (table[name].to_pylist() for name in ("origin", "choice_quality", "start"))
    return [
        Candidate(
            **{name: columns[name][row].item() for name in names},
            origin=origins[row],
            mask=PrefixMask(sizes[row].copy(), max_size),
            choice_quality=choices[row],
            start=None if starts[row] is None else Start(**json.loads(starts[row])),
        )
        for row in range(len(table))
    ]
