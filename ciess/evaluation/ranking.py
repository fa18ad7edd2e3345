"""Full ranking of items: which pairs are hidden, and the best of the rest in blocks of users."""

import numpy as np
import torch
from torch import Tensor

from ciess.data import Pairs
from ciess.errors import FitError

GROUP, FEWEST_GROUPS = 64, 8
"""Items a group, and groups a place of the list from which on their largest are ranked first: 38,048 items of 256 users
then take 6 ms instead of 15."""

BLOCK_BYTES = {"cpu": 4 << 20, "cuda": 512 << 20}
"""Working memory of one block of users: about a cache on a CPU, enough to fill a GPU."""


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
    """The k best items of each row, best first, equal scores by item index.

    Args:
        scores: float32[b, n_items]; -inf marks items that cannot be recommended.
        k: items a row.

    Returns:
        int64[b, min(k, n_items)], -1 in the place of an item that cannot be recommended.

    Raises:
        FitError: a score is not a number.
    """
    k = min(k, scores.shape[1])
    values, items = _largest(scores, min(k + 1, scores.shape[1]))
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
            chosen[crossing], items[crossing] = _first_of_ties(scores[crossing], values[crossing, k - 1 : k], k)
    return items.masked_fill(chosen == -torch.inf, -1)


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest scores of each row, descending, and their items, of equal scores any."""
    groups = scores.shape[1] // GROUP
    if groups < FEWEST_GROUPS * k:
        values, items = scores.topk(k, dim=1)
        return values, items
    # They stand in the k groups whose largest are the largest, or in what is left over.
    grouped = scores[:, : groups * GROUP].unflatten(1, (groups, GROUP))
    places = grouped.amax(2).topk(k, dim=1).indices[:, :, None] * GROUP + torch.arange(GROUP, device=scores.device)
    rest = torch.arange(groups * GROUP, scores.shape[1], device=scores.device).expand(len(scores), -1)
    candidates = torch.cat([places.flatten(1), rest], dim=1)
    values, found = scores.gather(1, candidates).topk(k, dim=1)
    return values, candidates.gather(1, found)


def _first_of_ties(scores: Tensor, least: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best scores of each row and their items, where more items than fit have the k-th score `least` [b, 1]."""
    better, level = scores > least, scores == least
    level &= level.cumsum(1, dtype=torch.int32) <= k - better.sum(1, keepdim=True)
    items = torch.nonzero(better | level)[:, 1].view(len(scores), k)
    values, order = scores.gather(1, items).sort(dim=1, descending=True, stable=True)
    return values, items.gather(1, order)


FEWEST_USERS = 64
"""Of a block where scores are plain products: for fewer, items' vectors are read more often than they are used."""


def users_a_block(n_items: int, floats_per_score: int, device: torch.device) -> int:
    """Users whose scores are computed at once."""
    least = FEWEST_USERS if floats_per_score == 1 else 1
    return max(least, BLOCK_BYTES[device.type] // (4 * n_items * floats_per_score))
