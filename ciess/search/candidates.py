"""The masks that a search has visited, and the best of them for a budget (Eq. 15)."""

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

    @property
    def slot(self) -> Slot:
        """Where in the search it stands."""
        return self.lane, self.episode, self.iteration

    @property
    def where(self) -> str:
        """For the reader."""
        if self.origin == "equal":
            return describe_equal(self.mask)
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
        origin: `search`, or `equal` for equal sizes.

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
        by: mean quality ratio over `all` entities (Eq. 16) or `users`.
        buckets: where given, a mask serves only the largest of these sparsities that it meets (published code).
    """
    bound = masks.exact(sparsity)
    others = [masks.exact(bucket) for bucket in buckets if masks.exact(bucket) > bound]
    found: dict[bytes, Candidate] = {}
    for candidate in visited:
        reached = masks.sparsity(candidate.mask)
        if reached >= bound and not any(reached >= other for other in others):
            found.setdefault(candidate.mask.sizes.tobytes(), candidate)
    ratio = "quality_ratio" if by == "all" else "users_quality_ratio"
    return sorted(found.values(), key=lambda candidate: -getattr(candidate, ratio))[:count]


def sparsest(visited: list[Candidate]) -> Candidate | None:
    """The sparsest mask of all, None where there is none."""
    return max(visited, key=lambda candidate: candidate.sparsity, default=None)


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


def to_columns(visited: list[Candidate], n: int) -> dict[str, npt.NDArray[Any]]:
    """The candidates as arrays by name, `sizes` as int16[candidates, n]; origin as bool `equal`."""
    types: dict[str, npt.DTypeLike] = dict.fromkeys(("episode", "iteration", "lane"), np.int64)
    types |= dict.fromkeys(("sparsity", "quality_ratio", "users_quality_ratio", "quality"), np.float64)
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.array([getattr(candidate, name) for candidate in visited], dtype) for name, dtype in types.items()
    }
    columns["equal"] = np.array([candidate.origin == "equal" for candidate in visited], np.bool_)
    columns["sizes"] = np.array([candidate.mask.sizes for candidate in visited], np.int16).reshape(-1, n)
    return columns


def from_columns(columns: Mapping[str, npt.NDArray[Any]], max_size: int) -> list[Candidate]:
    """The candidates of such arrays.

    Raises:
        BudgetError: sizes above max_size.
    """
    names = [name for name in columns if name not in ("equal", "sizes")]
    return [
        Candidate(
            **{name: columns[name][row].item() for name in names},
            origin="equal" if columns["equal"][row] else "search",
            mask=PrefixMask(columns["sizes"][row].copy(), max_size),
        )
        for row in range(len(columns["equal"]))
    ]


def to_table(visited: list[Candidate], n: int) -> pa.Table:
    """Rows of candidates.parquet."""
    columns = to_columns(visited, n)
    sizes = pa.FixedSizeListArray.from_arrays(pa.array(columns.pop("sizes").reshape(-1)), n)
    columns["origin"] = np.where(columns.pop("equal"), "equal", "search")
    table = pa.table({**columns, "sizes": sizes})
    return table.select(CANDIDATES.names).cast(CANDIDATES)


def from_table(table: pa.Table, max_size: int) -> list[Candidate]:
    """The candidates of the rows of candidates.parquet.

    Raises:
        BudgetError: sizes above max_size.
    """
    names = [name for name in CANDIDATES.names if name not in ("origin", "sizes")]
    columns = {name: table[name].to_numpy() for name in names}
    columns["equal"] = np.array(table["origin"].to_pylist(), dtype=object) == "equal"
    sizes = table["sizes"].combine_chunks().flatten().to_numpy()
    columns["sizes"] = sizes.reshape(len(table), -1) if len(table) else np.empty((0, 0), np.int16)
    return from_columns(columns, max_size)
