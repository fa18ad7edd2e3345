"""Recall@k and NDCG@k a user under full ranking, and the qualities that follow from them (Eq. 8-9)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ciess.data import Pairs
from ciess.errors import FitError

CUTOFFS = (5, 10, 20)
"""K of Eq. 8."""

BLOCK_BYTES = {"cpu": 4 << 20, "cuda": 512 << 20}
"""Working memory of one block of users: about a cache on a CPU, enough to fill a GPU."""


@dataclass(frozen=True)
class UserMetrics:
    """Metrics of every user: float32[n_users] by name (`Recall@5`, `NDCG@20`, ...), 0 where nothing was held out.

    counted: bool[n_users], users with at least one held-out item; means are taken over them.
    """

    values: dict[str, npt.NDArray[np.float32]]
    counted: npt.NDArray[np.bool_]

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


class PairLookup:
    """Membership in a set of pairs, and the pairs of a block of users."""

    def __init__(self, pairs: Pairs, n_users: int, n_items: int, device: torch.device) -> None:
        self.n_items = n_items
        self._indptr = pairs.indptr(n_users)
        keys = pairs.users.astype(np.int64) * n_items + pairs.items
        self._items = torch.from_numpy(pairs.items.astype(np.int64)).to(device)
        self._users = torch.from_numpy(pairs.users.astype(np.int64)).to(device)
        # A last key above all others spares the bounds check of the search.
        self._keys = torch.from_numpy(np.append(keys, np.iinfo(np.int64).max)).to(device)
        self.counts = torch.from_numpy(np.diff(self._indptr)).to(device)

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """A bool tensor of the broadcast shape of users and items."""
        keys = users * self.n_items + items
        return self._keys[torch.searchsorted(self._keys, keys)] == keys

    def hide(self, scores: Tensor, first_user: int) -> None:
        """Set the scores [b, n_items] of users first_user.. to -inf at their pairs, in place."""
        pairs = slice(int(self._indptr[first_user]), int(self._indptr[first_user + len(scores)]))
        scores[self._users[pairs] - first_user, self._items[pairs]] = -torch.inf


def top_items(scores: Tensor, k: int) -> Tensor:
    """The k best items of each row, best first, equal scores by item index: int64[b, min(k, n_items)].

    scores: float32[b, n_items]; -inf marks items that cannot be recommended, in whose place stands -1.
    """
    k = min(k, scores.shape[1])
    values, items = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if bool(torch.isnan(values).any()):
        raise FitError("The model gives scores that are not numbers. Train it again with a lower learning rate.")
    # topk breaks ties as it likes: order the chosen ones by item, and search again where a tie crosses the cut.
    items, order = items[:, :k].sort(dim=1)
    chosen = values[:, :k].gather(1, order)
    chosen, order = chosen.sort(dim=1, descending=True, stable=True)
    items = items.gather(1, order)
    if values.shape[1] > k:
        crossing = torch.nonzero((values[:, k - 1] == values[:, k]) & (values[:, k] > -torch.inf)).flatten()
        if len(crossing):
            best, ranked = scores[crossing].sort(dim=1, descending=True, stable=True)
            chosen[crossing], items[crossing] = best[:, :k], ranked[:, :k]
    return items.masked_fill(chosen == -torch.inf, -1)


def users_a_block(n_items: int, floats_per_score: int, device: torch.device) -> int:
    """Users whose scores are computed at once."""
    return max(1, BLOCK_BYTES[device.type] // (4 * n_items * floats_per_score))


def evaluate(
    score_users: Callable[[Tensor], Tensor],
    seen: Sequence[PairLookup],
    held_out: PairLookup,
    floats_per_score: int = 1,
    cutoffs: Sequence[int] = CUTOFFS,
) -> UserMetrics:
    """Rank all items but the seen ones for every user and compare with the held-out ones.

    score_users: from int64[b] users to float32[b, n_items], in which seen items are then hidden.
    Recall@k = hits / held-out items. NDCG@k = sum over hits of 1 / log2(rank + 1), divided by the same sum with
    all of the first min(k, held-out items) ranks hit. floats_per_score sizes the user blocks to memory.
    """
    n_users, device = len(held_out.counts), held_out.counts.device
    largest = max(cutoffs)
    discounts = 1 / torch.log2(torch.arange(2, largest + 2, device=device, dtype=torch.float32))
    ideals = torch.cat([torch.zeros(1, device=device), discounts.cumsum(0)])
    block = users_a_block(held_out.n_items, floats_per_score, device)
    parts: dict[str, list[Tensor]] = {f"{metric}@{k}": [] for metric in ("Recall", "NDCG") for k in cutoffs}
    for first in range(0, n_users, block):
        users = torch.arange(first, min(first + block, n_users), device=device)
        scores = score_users(users)
        for lookup in seen:
            lookup.hide(scores, first)
        ranked = top_items(scores, largest)
        hits = held_out.contains(users[:, None], ranked) & (ranked >= 0)
        counts = held_out.counts[users]
        gains = (hits * discounts[: hits.shape[1]]).cumsum(1)
        found = hits.cumsum(1)
        for k in cutoffs:
            last = min(k, hits.shape[1]) - 1
            parts[f"Recall@{k}"].append(found[:, last] / counts.clamp(min=1))
            parts[f"NDCG@{k}"].append(gains[:, last] / ideals[counts.clamp(min=1, max=k)])
    values = {name: torch.cat(blocks).to(torch.float32).cpu().numpy() for name, blocks in parts.items()}
    return UserMetrics(values, (held_out.counts > 0).cpu().numpy())


def item_quality(
    user_quality: npt.NDArray[np.floating], train: Pairs, n_items: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """eval(e_v) of Eq. 9: mean of the qualities of the item's training users.

    user_quality: float[n_users]. Returns float32[n_items] (0 without training users) and bool[n_items], which items
    have training users.
    """
    degrees = np.bincount(train.items, minlength=n_items)
    sums = np.bincount(train.items, weights=np.asarray(user_quality, dtype=np.float64)[train.users], minlength=n_items)
    return (sums / np.maximum(degrees, 1)).astype(np.float32), degrees > 0
