"""The numbers of a start by validation: a climb over a small grid, each point of which costs one evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ciess.config.models import WITHOUT_USERS
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.errors import FitError
from ciess.masks.mask import Mask, with_fewer_users
from ciess.training.fit import fit
from ciess.training.loop import FitRequest
from ciess.training.prepared import Prepared
from ciess.training.starts.start import SIDES, Start
from ciess.training.starts.weights import JUDGED_STEPS, initial_weights, spectral_items

Point = tuple[float | str, ...]
Grid = Mapping[str, Sequence[float | str]]

JUDGED_USERS = 3_000
"""Users on whose validation pairs a point is judged: a difference of .002 in the mean of Eq. 8 then shows."""

FEWEST_USERS, JUDGED_SCORES = 1_000, 200_000_000
"""Fewer users, but not below the first, where their scores of all items would be more than the second."""

EXPONENTS, POWERS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3), (0.0, 0.25, 0.5, 0.75, 1.0)
"""x and p of a spectral start."""

HISTORY_EXPONENTS, ITEM_EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5), (-0.2, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""b and a of the backbone `items`."""

ITEM_WEIGHTS = (1.0, 4.0, 16.0)
"""How much items' rows count in the least squares of a projected start."""


@dataclass
class Climb:
    """A search on a grid from a point to the best of its neighbours, one coordinate at a time.

    Attributes:
        grid: levels of each coordinate, in order.
        judge: quality of a point; each is asked for once.
        seen: qualities so far.
    """

    grid: Grid
    judge: Callable[[dict[str, float | str]], float]
    seen: dict[Point, float] = field(default_factory=dict)

    def value(self, point: Mapping[str, float | str]) -> float:
        """Quality of a point."""
        key = tuple(point[name] for name in self.grid)
        if key not in self.seen:
            self.seen[key] = self.judge(dict(point))
        return self.seen[key]

    def best_of(self, points: Sequence[Mapping[str, float | str]]) -> dict[str, float | str]:
        """The best of several points, the first of equals."""
        return dict(points[max(range(len(points)), key=lambda place: self.value(points[place]))])

    def run(self, point: Mapping[str, float | str], rounds: int = 3) -> dict[str, float | str]:
        """Climb from a point until no neighbour is better, or for so many rounds over all coordinates."""
        now = dict(point)
        for _ in range(rounds):
            before = dict(now)
            for name, levels in self.grid.items():
                for step in (1, -1):
                    while (place := levels.index(now[name]) + step) in range(len(levels)):
                        other = now | {name: levels[place]}
                        if self.value(other) <= self.value(now):
                            break
                        now = other
            if now == before:
                break
        return now


def spectral_grid(backbone: str) -> dict[str, Sequence[float | str]]:
    """Coordinates of a spectral start of a backbone."""
    if backbone == "items":
        return {"exponent": HISTORY_EXPONENTS, "item_exponent": ITEM_EXPONENTS, "power": POWERS}
    return {"side": SIDES[backbone], "exponent": EXPONENTS, "power": POWERS}  # type: ignore[index]


def spectral_begin(backbone: str) -> dict[str, float | str]:
    """The point that a climb begins with: what was good on every data set that was measured."""
    if backbone == "items":
        return {"exponent": 0.4, "item_exponent": 0.3, "power": 0.25}
    return {"side": "both", "exponent": 0.1, "power": 0.5}


def spectral_start(backbone: str, point: Mapping[str, float | str]) -> Start:
    """The start of a point."""
    numbers = {name: point[name] for name in ("exponent", "power", "item_exponent") if name in point}
    return Start("spectral", point.get("side", "items"), **numbers)  # type: ignore[arg-type]


def untrained_quality(
    data: Interactions,
    prepared: Prepared,
    config: RecommenderConfig,
    mask: Mask,
    start: Start,
    seed: int,
    reference: Mapping[str, Tensor] | None = None,
    users: int | None = None,
    by_half: bool = False,
) -> float:
    """Validation mean of Eq. 8 of a start without any training, on a sample of users; 0 where its scores overflow.

    Args:
        data: what is trained on.
        prepared: its shared parts.
        config: settings of the recommender.
        mask: which entries exist.
        start: the start.
        seed: of what it draws.
        reference: weights of a full table trained on these data, which `cut` and `projected` need.
        users: on whose validation pairs, `judged_users` by default.
        by_half: on the half of these that a search sees.

    Returns:
        the mean.
    """
    users = judged_users(data.n_items) if users is None else users
    judged = config.recommender().model_copy(update={"evaluate_users": min(users, data.n_users)})
    if config.backbone in WITHOUT_USERS and start.name == "spectral" and users < data.n_users:
        # Users are made of their items' rows, so those who are not ranked need not be made.
        mask, data = with_fewer_users(mask, data.n_users, users), prepared.reduced(data, users)
        initial = spectral_items(prepared, start, config.max_size)
    else:
        initial = initial_weights(data, prepared, judged, mask, start, seed, reference, JUDGED_STEPS)
    try:
        found = fit(data, FitRequest(judged, mask, seed, epochs=0, initial=initial, halves=by_half)).validation
    except FitError:
        return 0.0
    assert found is not None
    return (found.parts[0] if by_half else found).mean_quality()


def judged_users(n_items: int) -> int:
    """Users on whose validation pairs a point is judged."""
    return max(FEWEST_USERS, min(JUDGED_USERS, JUDGED_SCORES // max(1, n_items)))


def tuned_spectral(
    data: Interactions,
    prepared: Prepared,
    config: RecommenderConfig,
    mask: Mask,
    seed: int,
    by_half: bool = False,
) -> tuple[Start, float]:
    """The spectral start whose numbers are best for a mask by validation, or its first half, and its quality."""
    backbone = config.backbone

    def judge(point: dict[str, float | str]) -> float:
        start = spectral_start(backbone, point)
        return untrained_quality(data, prepared, config, mask, start, seed, by_half=by_half)

    climb = Climb(spectral_grid(backbone), judge)
    begin = spectral_begin(backbone)
    if backbone == "lightgcn":
        begin = climb.best_of([begin | {"side": side} for side in SIDES["lightgcn"]])
    found = climb.run(begin)
    return spectral_start(backbone, found), climb.value(found)


def tuned_projected(
    data: Interactions,
    prepared: Prepared,
    config: RecommenderConfig,
    mask: Mask,
    seed: int,
    reference: Mapping[str, Tensor],
) -> tuple[Start, float]:
    """The projected start whose weight of items' rows is best for a mask by validation, and its quality."""
    starts = [Start("projected", item_weight=weight) for weight in ITEM_WEIGHTS]
    qualities = [untrained_quality(data, prepared, config, mask, start, seed, reference) for start in starts]
    best = max(range(len(starts)), key=qualities.__getitem__)
    return starts[best], qualities[best]
