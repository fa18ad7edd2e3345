"""Sizes by popularity: what anyone can have without a search, in seconds."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.config.models import WITHOUT_USERS
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.masks.bounds import SizeBounds
from ciess.masks.mask import PrefixMask
from ciess.methods.journal import Journal
from ciess.seeds import derive_seed
from ciess.tables.spec import TableSpec
from ciess.training.prepared import Prepared, prepare
from ciess.training.starts.start import SIDES, Start
from ciess.training.starts.tuning import Climb, spectral_begin, spectral_grid, spectral_start, untrained_quality

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of the budget that items' rows take; with 0 or 1 the other side has no rows."""

NOTHING = 1e-9
"""Share of what is wanted at most, for rows that are wanted nothing of but may not go without."""

POPULARITIES = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1)
"""b: sizes in proportion to degree^b."""


def sized_mask(
    degrees: npt.NDArray[np.int64],
    n_users: int,
    max_size: int,
    sparsity: float | str | Fraction,
    bounds: SizeBounds,
    item_share: float,
    popularity: float,
) -> PrefixMask:
    """Sizes ~ share(side) degree^popularity that use a budget to the last parameter.

    Args:
        degrees: training pairs of each row, int64[n], users first.
        n_users: number of users.
        max_size: columns of the full table, d_max.
        sparsity: share of the table that is removed.
        bounds: of the sizes.
        item_share: of the budget that items' rows take.
        popularity: exponent of the degrees; a row without pairs counts as one with one.

    Returns:
        the mask.

    Raises:
        BudgetError: the sparsity cannot be met.
    """
    wanted = np.maximum(degrees, 1).astype(np.float64) ** popularity
    for rows, share in ((slice(0, n_users), 1 - item_share), (slice(n_users, None), item_share)):
        wanted[rows] *= share / wanted[rows].sum()
    # A side that takes nothing keeps its smallest sizes.
    wanted = np.where((wanted > 0) | (bounds.low == 0), wanted, NOTHING * wanted.max())
    return masks.project(wanted, max_size, sparsity, degrees, bounds)


def sized(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
) -> list[TableSpec]:
    """One mask a budget: share of the sides, exponent, and the numbers of a spectral start by validation.

    A climb over a small grid from two or three corners; each point is judged untrained. A budget begins where the one
    before ended, too.
    """
    journal = Journal() if journal is None else journal
    found: list[TableSpec] = []
    before: list[dict[str, float | str]] = []
    with cpu_threads(config.threads):
        prepared = prepare(data, resolve_device(config.device))
        for budget in sorted(budgets):
            spec, point = _best(data, config, prepared, budget, seed, before, journal)
            before = [point]
            found.append(spec)
    return sorted(found, key=lambda spec: list(budgets).index(spec.target_sparsity or budgets[0]))


def _best(
    data: Interactions,
    config: FitConfig,
    prepared: Prepared,
    budget: Fraction,
    seed: int,
    begin: Sequence[Mapping[str, float | str]],
    journal: Journal,
) -> tuple[TableSpec, dict[str, float | str]]:
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    degrees, backbone, judging = data.degrees(), config.backbone, derive_seed(seed, "sized")

    def mask_of(point: Mapping[str, float | str]) -> PrefixMask:
        share, popularity = float(point["item_share"]), float(point["popularity"])
        return sized_mask(degrees, data.n_users, config.max_size, budget, bounds, share, popularity)

    def judge(point: dict[str, float | str]) -> float:
        quality = untrained_quality(data, prepared, config, mask_of(point), spectral_start(backbone, point), judging)
        journal.note(
            stage=f"sized {float(100 * budget):g} %",
            step=len(climb.seen) + 1,
            **point,
            quality=quality,
            best=max([*climb.seen.values(), quality]),
        )
        return quality

    shares = (1.0,) if backbone in WITHOUT_USERS else SHARES
    climb = Climb({"item_share": shares, "popularity": POPULARITIES, **spectral_grid(backbone)}, judge)
    middle = {"popularity": 0.5, **spectral_begin(backbone)}
    corners = [middle | {"item_share": share} for share in shares if share in (0.0, 0.5, 1.0)]
    corners += [corner | {"side": side} for corner in corners for side in SIDES[backbone] if "side" in corner]
    point = climb.run(climb.best_of([*begin, *corners]))
    start: Start = spectral_start(backbone, point)
    facts = {"item_share": point["item_share"], "popularity": point["popularity"], "judged": climb.value(point)}
    return TableSpec("sized", mask_of(point), seed, budget, start=start, search=facts), point
