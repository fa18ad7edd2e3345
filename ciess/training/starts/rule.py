"""The rule of sizes by popularity at a budget, with the numbers of a spectral start: a climb on validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ciess import masks
from ciess.config.models import WITHOUT_USERS
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.masks.mask import PrefixMask
from ciess.masks.popularity import sized_mask
from ciess.training.prepared import Prepared
from ciess.training.starts.start import SIDES, Start
from ciess.training.starts.tuning import (
    Climb,
    spectral_begin,
    spectral_grid,
    spectral_start,
    untrained_quality,
)

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of the budget that items' rows take; with 0 or 1 the other side has no rows."""

POPULARITIES = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1)
"""b: sizes in proportion to degree^b."""

Note = Callable[..., None]
"""Called with the number of a step, its coordinates, `quality` and the `best` so far."""


@dataclass(frozen=True)
class Rule:
    """Sizes ~ share(side) degree^popularity, and where a fit of them starts.

    Attributes:
        item_share: of the budget that items' rows take.
        popularity: exponent of the degrees.
        start: of fits, None where they begin fresh.
        judged: validation mean of Eq. 8 where it was found, None where nothing was judged.
    """

    item_share: float
    popularity: float
    start: Start | None = None
    judged: float | None = None

    def described(self) -> dict[str, Any]:
        """As JSON."""
        start = None if self.start is None else self.start.described()
        return {"item_share": self.item_share, "popularity": self.popularity, "start": start, "judged": self.judged}

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Rule":
        """The rule that `described` gave these words."""
        start = described["start"]
        return cls(**{**described, "start": None if start is None else Start(**start)})

    def mask(self, data: Interactions, config: RecommenderConfig, budget: float | Fraction) -> PrefixMask:
        """Its sizes at a budget."""
        bounds = masks.size_bounds(config, data.n_users, data.n_items)
        return sized_mask(
            data.degrees(), data.n_users, config.max_size, budget, bounds, self.item_share, self.popularity
        )


def tuned_rule(
    data: Interactions,
    prepared: Prepared,
    config: RecommenderConfig,
    budget: Fraction,
    seed: int,
    begin: Sequence[Rule] = (),
    note: Note = lambda **_: None,
    users: int | None = None,
    by_half: bool = False,
) -> Rule:
    """The best rule at a budget by validation; each point is judged untrained.

    A climb over a small grid from the corners of the sides' shares, and from rules that were good elsewhere.

    Args:
        data: what is trained on.
        prepared: its shared parts.
        config: settings of the recommender.
        budget: share of the table that is removed.
        seed: of what starts draw.
        begin: rules on the same grid to climb from, too.
        note: told of every step.
        users: on whose validation pairs a point is judged.
        by_half: judge on the half of validation that a search sees.

    Returns:
        the rule.
    """
    backbone = config.backbone

    def rule_of(point: Mapping[str, float | str]) -> Rule:
        return Rule(float(point["item_share"]), float(point["popularity"]), spectral_start(backbone, point))

    def judge(point: dict[str, float | str]) -> float:
        rule = rule_of(point)
        assert rule.start is not None
        mask = rule.mask(data, config, budget)
        quality = untrained_quality(data, prepared, config, mask, rule.start, seed, users=users, by_half=by_half)
        note(step=len(climb.seen) + 1, **point, quality=quality, best=max([*climb.seen.values(), quality]))
        return quality

    shares = (1.0,) if backbone in WITHOUT_USERS else SHARES
    climb = Climb({"item_share": shares, "popularity": POPULARITIES, **spectral_grid(backbone)}, judge)
    middle = {"popularity": 0.5, **spectral_begin(backbone)}
    corners = [middle | {"item_share": share} for share in shares if share in (0.0, 0.5, 1.0)]
    corners += [corner | {"side": side} for corner in corners for side in SIDES[backbone] if "side" in corner]
    point = climb.run(climb.best_of([*(_point(rule, climb.grid) for rule in begin), *corners]))
    found = rule_of(point)
    return Rule(found.item_share, found.popularity, found.start, climb.value(point))


def _point(rule: Rule, grid: Mapping[str, Sequence[float | str]]) -> dict[str, float | str]:
    """Where on the grid a rule stands."""
    assert rule.start is not None
    values = rule.start.described() | {"item_share": rule.item_share, "popularity": rule.popularity}
    # What a start does not describe is 0.
    return {name: values.get(name, 0.0) for name in grid}
