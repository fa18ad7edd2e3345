"""Successive halving of the masks that stand for choice (Jamieson and Talwalkar, AISTATS 2016)."""

import math
from collections.abc import Callable, Sequence

from ciess.retraining.choice import BY_RULE, Judged, Option

RUNGS = (0.25, 0.5)
"""Shares of the epochs after which half of the searched masks go on."""


def judged_by_halving(options: Sequence[Option], judge: Callable[[Option, float], Judged]) -> list[Judged]:
    """Judge options by trainings of which only the best are finished.

    Sizes by rule are always trained to the end: they are the baseline.

    Args:
        options: masks that stand for choice.
        judge: trains one for a share of its epochs, or goes on with it, and says what validation finds.

    Returns:
        what was found last of each, in order. The best of the searched ones is among those that were finished.
    """
    found: dict[int, Judged] = {}
    alive = [place for place, option in enumerate(options) if option.origin not in BY_RULE]
    for share in RUNGS:
        if len(alive) == 1:
            break
        for place in alive:
            found[place] = judge(options[place], share)
        ordered = sorted(alive, key=lambda place: (-found[place].merit, place))
        alive = sorted(ordered[: math.ceil(len(alive) / 2)])
    rules = [place for place, option in enumerate(options) if option.origin in BY_RULE]
    for place in sorted(alive + rules):
        found[place] = judge(options[place], 1.0)
    return [found[place] for place in range(len(options))]
