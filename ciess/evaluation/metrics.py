"""Recall@k and NDCG@k a user under full ranking, and the qualities that follow from them (Eq. 8-9)."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ciess.data import Pairs
from ciess.evaluation.ranking import PairLookup, top_items, users_a_block

CUTOFFS = (5, 10, 20)
"""K of Eq. 8."""


@dataclass(frozen=True)
class UserMetrics:
    """Metrics of every user, 0 where nothing was held out.

    Attributes:
        values: float32[n_users] by name (`Recall@5`, `NDCG@20`, ...).
        counted: bool[n_users], users with at least one held-out item, out of those that were ranked; means are taken
            over them.
        coverage: share of items that stand in the list of anyone who was ranked, as long as the largest cutoff.
        parts: metrics of the same lists on parts of the held-out pairs, where some were asked for.
    """

    values: dict[str, npt.NDArray[np.float32]]
    counted: npt.NDArray[np.bool_]
    coverage: float | None = None
    parts: tuple["UserMetrics", ...] = ()

    def means(self) -> dict[str, float]:
        """Mean of each metric over the counted users, in float64."""
        return {name: float(values[self.counted].mean(dtype=np.float64)) for name, values in self.values.items()}

    def quality(self) -> npt.NDArray[np.float32]:
        """eval(e_u) of Eq. 8: float32[n_users], the mean of Recall and NDCG over the cutoffs."""
        quality: npt.NDArray[np.float32] = np.mean(list(self.values.values()), axis=0, dtype=np.float32)
        return quality

    def mean_quality(self) -> float:
        """Mean of Eq. 8 over the counted users."""
        return float(self.quality()[self.counted].mean(dtype=np.float64))

    def interval(self) -> float:
        """Half of the 95 % interval of that mean, had the counted users been drawn from many more."""
        values = self.quality()[self.counted].astype(np.float64)
        return float(1.96 * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def evaluate(
    score_users: Callable[[Tensor], Tensor],
    seen: Sequence[PairLookup],
    held_out: PairLookup,
    floats_per_score: int = 1,
    cutoffs: Sequence[int] = CUTOFFS,
    users: npt.NDArray[np.int64] | None = None,
    n_users: int | None = None,
    parts: Sequence[PairLookup] = (),
) -> UserMetrics:
    """Rank all items but the seen ones for every user and compare with the held-out ones.

    Recall@k = hits / held-out items. NDCG@k = sum over hits of 1 / log2(rank + 1), divided by the same sum with
    all of the first min(k, held-out items) ranks hit.

    Args:
        score_users: from int64[b] users to float32[b, n_items], in which seen items are then hidden.
        seen: pairs that are hidden.
        held_out: pairs to be found.
        floats_per_score: numbers that the model makes for a score; it sizes the user blocks to memory.
        cutoffs: each k.
        users: codes int64[m] of the users whose pairs the look-ups hold, row by row; None for all.
        n_users: number of all users, needed where `users` are some.
        parts: of the held-out pairs, on which the same lists are judged, too.

    Returns:
        metrics of every user.

    Raises:
        FitError: a score is not a number.
    """
    rows, device = len(held_out.counts), held_out.counts.device
    codes = None if users is None else torch.from_numpy(users).to(device)
    largest = max(cutoffs)
    block = users_a_block(held_out.n_items, floats_per_score, device)
    covered = torch.zeros(held_out.n_items + 1, dtype=torch.bool, device=device)
    tallies = [_Tally(lookup, cutoffs) for lookup in (held_out, *parts)]
    for first in range(0, rows, block):
        row = torch.arange(first, min(first + block, rows), device=device)
        scores = score_users(row if codes is None else codes[row])
        for lookup in seen:
            lookup.hide(scores, first)
        ranked = top_items(scores, largest)
        covered[ranked] = True  # -1, where nothing is left to recommend, is the place after the last item
        for tally in tallies:
            tally.add(row, ranked)
    coverage = float(covered[:-1].float().mean())
    whole, *others = (tally.metrics(coverage, users, n_users) for tally in tallies)
    return dataclasses.replace(whole, parts=tuple(others))


class _Tally:
    """Recall and NDCG of lists, a block of users at a time."""

    def __init__(self, held_out: PairLookup, cutoffs: Sequence[int]) -> None:
        self.held_out, self.cutoffs, device = held_out, cutoffs, held_out.counts.device
        ranks = torch.arange(2, max(cutoffs) + 2, device=device, dtype=torch.float32)
        self._discounts = 1 / torch.log2(ranks)
        self._ideals = torch.cat([torch.zeros(1, device=device), self._discounts.cumsum(0)])
        # Of all users at once: what a block leaves behind would keep the C library from using its memory again.
        names = [f"{metric}@{k}" for metric in ("Recall", "NDCG") for k in cutoffs]
        self._values = {name: torch.zeros(len(held_out.counts), device=device) for name in names}

    def add(self, row: Tensor, ranked: Tensor) -> None:
        """Users int64[b] and their lists int64[b, k], -1 where there is nothing left."""
        hits = self.held_out.contains(row[:, None], ranked) & (ranked >= 0)
        counts = self.held_out.counts[row]
        gains = (hits * self._discounts[: hits.shape[1]]).cumsum(1)
        found = hits.cumsum(1)
        for k in self.cutoffs:
            last = min(k, hits.shape[1]) - 1
            self._values[f"Recall@{k}"][row] = found[:, last] / counts.clamp(min=1)
            self._values[f"NDCG@{k}"][row] = gains[:, last] / self._ideals[counts.clamp(min=1, max=k)]

    def metrics(self, coverage: float, users: npt.NDArray[np.int64] | None, n_users: int | None) -> UserMetrics:
        """What was added, of these users among n_users, or of all."""
        values = {name: found.cpu().numpy() for name, found in self._values.items()}
        counted = (self.held_out.counts > 0).cpu().numpy()
        if users is None:
            return UserMetrics(values, counted, coverage)
        assert n_users is not None
        spread = {name: _spread(part, users, n_users) for name, part in values.items()}
        return UserMetrics(spread, _spread(counted, users, n_users), coverage)


def _spread(values: npt.NDArray[Any], users: npt.NDArray[np.int64], n_users: int) -> npt.NDArray[Any]:
    """Values of some users among those of all, 0 elsewhere."""
    found = np.zeros(n_users, values.dtype)
    found[users] = values
    return found


def item_quality(
    user_quality: npt.NDArray[np.floating], train: Pairs, n_items: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """eval(e_v) of Eq. 9: mean of the qualities of the item's training users.

    Args:
        user_quality: Eq. 8, float[n_users].
        train: training pairs.
        n_items: number of items.

    Returns:
        float32[n_items], 0 without training users, and bool[n_items], which items have training users.
    """
    degrees = np.bincount(train.items, minlength=n_items)
    sums = np.bincount(train.items, weights=np.asarray(user_quality, dtype=np.float64)[train.users], minlength=n_items)
    return (sums / np.maximum(degrees, 1)).astype(np.float32), degrees > 0
