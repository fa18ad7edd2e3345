"""What a search at given budgets adds to sizes by rule: paired differences on the pairs that masks are chosen by."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ciess import masks
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.masks.mask import PrefixMask
from ciess.search.candidates import Candidate, mean, sized_at
from ciess.search.environment import Environment
from ciess.search.proposals import Proposal
from ciess.search.rules import describe_start
from ciess.search.short_fit import CLOSED_FORM, short_fit_request
from ciess.seeds import derive_seed
from ciess.training.fit import fit
from ciess.training.prepared import prepare
from ciess.training.starts.start import Start
from ciess.training.starts.tuning import tuned_spectral


@dataclass(frozen=True)
class Gain:
    """Mean difference of two masks' qualities (Eq. 8) over users, and half of its 95 % interval."""

    mean: float
    half: float

    @classmethod
    def of(cls, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> "Gain":
        """Of the first over the second, float32[m] each, user by user."""
        difference = first.astype(np.float64) - second
        spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
        return cls(float(difference.mean()), 1.96 * spread / len(difference) ** 0.5)

    @property
    def shows(self) -> bool:
        """Whether the interval lies above 0."""
        return self.mean > self.half

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.mean - self.half:+.4f}, {self.mean + self.half:+.4f}]"


@dataclass(frozen=True)
class Verdict:
    """The best mask of a search at a budget, beside sizes by rule, all untrained or after their short fit.

    Attributes:
        sparsity: the budget.
        best: the candidate that stands first.
        quality: its mean of Eq. 8 on the pairs that masks are chosen by.
        sized: that of `sized`.
        equal: that of filled equal sizes from the best start they can get.
        over_sized: paired.
        over_equal: paired.
    """

    sparsity: float
    best: Candidate
    quality: float
    sized: float
    equal: float
    over_sized: Gain
    over_equal: Gain

    def described(self) -> dict[str, Any]:
        """As JSON."""
        gains = {"over_sized": self.over_sized, "over_equal": self.over_equal}
        return {
            "sparsity": self.sparsity,
            "best": self.best.where,
            "origin": self.best.origin,
            "start": None if self.best.start is None else self.best.start.described(),
            "quality": self.quality,
            "sized": self.sized,
            "equal": self.equal,
            **{name: {"mean": gain.mean, "half_interval": gain.half} for name, gain in gains.items()},
        }


def verdict(
    data: Interactions,
    config: SearchConfig,
    environment: Environment,
    visited: list[Candidate],
    best: Candidate,
    sparsity: float,
    start_from: Mapping[str, Tensor],
) -> Verdict:
    """Rank the best mask, `sized` and filled equal sizes on the pairs that masks are chosen by, all users.

    Args:
        data: interactions with a validation part.
        config: settings of the search.
        environment: of the search.
        visited: masks that it has tried, the one of `sized` among them.
        best: what `candidates` gives first.
        sparsity: the budget.
        start_from: as for `short_fit`.

    Returns:
        qualities and differences.
    """
    sized = sized_at(visited, sparsity)
    assert sized is not None
    filled = masks.equals(config.max_size, sparsity, environment.degrees, environment.bounds)[-1]
    start = sized.start
    if config.short_fit.start in CLOSED_FORM:
        with cpu_threads(config.threads):
            prepared = prepare(data, resolve_device(config.device))
            seed = derive_seed(config.seed, "equal")
            start = tuned_spectral(data, prepared, config, filled, seed, by_half=config.halves)[0]
    found, counted = _quality(data, config, best.mask, best.start, start_from)
    of_sized, _ = _quality(data, config, sized.mask, sized.start, start_from)
    of_equal, _ = _quality(data, config, filled, start, start_from)
    found, of_sized, of_equal = (values[counted] for values in (found, of_sized, of_equal))
    return Verdict(
        sparsity,
        best,
        mean(found),
        mean(of_sized),
        mean(of_equal),
        Gain.of(found, of_sized),
        Gain.of(found, of_equal),
    )


def _quality(
    data: Interactions, config: SearchConfig, mask: PrefixMask, start: Start | None, start_from: Mapping[str, Tensor]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Eq. 8 of every user on the pairs that masks are chosen by, and who has some."""
    request = short_fit_request(data, config, Proposal(0, 0, 1, mask.sizes, start), start_from)
    everyone = request.config.model_copy(update={"evaluate_users": config.evaluate_users})
    metrics = fit(data, dataclasses.replace(request, config=everyone)).validation
    assert metrics is not None
    chosen_by = metrics.parts[1] if metrics.parts else metrics
    return chosen_by.quality(), chosen_by.counted


def describe_verdict(found: Verdict, config: SearchConfig) -> list[str]:
    """The last lines of a search, a budget."""
    pairs = "the half of validation that it did not see" if config.halves else "the pairs that it was searched by"
    lines = [
        f"{100 * found.sparsity:g} %: quality {found.quality:.4f} on {pairs}; sized {found.sized:.4f}, filled equal "
        f"sizes {found.equal:.4f}",
        f"  gain over sized {found.over_sized}, over filled equal sizes {found.over_equal} (95 %, user by user; the "
        f"best of {config.fits or 0} masks by these pairs, so test is the judge)",
    ]
    if found.best.origin == "sized" or not found.over_sized.shows:
        lines.append("  the search adds nothing that shows: sized is handed over beside its masks")
    start = "" if found.best.start is None else f", start {describe_start(found.best.start)}"
    loss = "untrained" if config.short_fit.start in CLOSED_FORM else f"loss {config.training.loss}"
    return [*lines, f"  won by {found.best.where} of strategy {config.strategy}{start}, {loss}"]
