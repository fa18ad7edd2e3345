"""Training triples (u, v, v') of Eq. 4, drawn without a Python loop and without rejection."""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ciess.data import Pairs
from ciess.errors import FitError
from ciess.seeds import derive_seed


@dataclass(frozen=True)
class Triples:
    """Batches of one epoch: three int64[batch] tensors a step."""

    users: list[Tensor]
    positives: list[Tensor]
    negatives: list[Tensor]


@dataclass(frozen=True, eq=False)
class _Table:
    """Pairs as a sampler draws them: int64 [n_users + 1], [n_users] and [m] three times."""

    indptr: Tensor
    degrees: Tensor
    users: Tensor
    items: Tensor
    keys: Tensor


class Sampler:
    """Draws users, one of their training items, and an item outside their training items.

    A negative is exactly uniform over the n_items - degree items that are not in the user's training set: its rank r
    among them is drawn, and the item is r + (number of training items before it), which one binary search finds.
    """

    def __init__(self, pairs: Pairs, n_users: int, n_items: int, device: torch.device) -> None:
        self.n_users, self.n_items, self.n_pairs, self.device = n_users, n_items, len(pairs), device
        indptr = pairs.indptr(n_users)
        degrees = np.diff(indptr)
        if (degrees == 0).any() or (degrees >= n_items).any():
            raise FitError(
                f"{int((degrees == 0).sum())} users have no training item and {int((degrees >= n_items).sum())} have "
                f"all {n_items} of them, but a training pair needs an item inside and one outside the user's training "
                "set. Drop these users, for instance with min_interactions."
            )
        self.every_item = torch.arange(n_items, device=device)
        self._pairs, self._counts = pairs, (indptr, degrees)

    @functools.cached_property
    def _table(self) -> _Table:
        """Made when the first triple is drawn, as some losses draw none."""
        (indptr, degrees), device = self._counts, self.device
        users, items = self._pairs.users.astype(np.int64), self._pairs.items.astype(np.int64)
        # Of a user's j-th training item (ascending), item - j counts the others before it.
        others_before = items - (np.arange(len(items)) - indptr[users])
        arrays = (indptr.astype(np.int64), degrees.astype(np.int64), users, items, users * self.n_items + others_before)
        return _Table(*(torch.from_numpy(array).to(device) for array in arrays))

    def steps(self, batch_size: int) -> int:
        """Batches an epoch: ceil(training pairs / batch_size)."""
        return -(-self.n_pairs // batch_size)

    def epoch(
        self, seed: int, epoch: int, batch_size: int, sampling: Literal["user", "interaction"] = "user"
    ) -> Triples:
        """The triples of one epoch, a function of (seed, epoch) alone.

        `user`: every pair has a uniform user and one of its items, uniform. `interaction`: every training pair once.
        """
        generator = torch.Generator(self.device)
        generator.manual_seed(derive_seed(seed, "samples", epoch))
        table = self._table
        if sampling == "user":
            shape = (self.steps(batch_size), batch_size)
            # Order inside a batch has no meaning; sorted users make every look-up local.
            users = torch.randint(self.n_users, shape, generator=generator, device=self.device).sort(dim=1)[0]
            users = users.flatten()
            positives = table.items[table.indptr[users] + self._below(table.degrees[users], generator)]
        else:
            order = torch.randperm(self.n_pairs, generator=generator, device=self.device)
            users, positives = table.users[order], table.items[order]
        rank = self._below(self.n_items - table.degrees[users], generator)
        negatives = rank + torch.searchsorted(table.keys, users * self.n_items + rank, right=True) - table.indptr[users]
        return Triples(
            list(users.split(batch_size)), list(positives.split(batch_size)), list(negatives.split(batch_size))
        )

    def shared(self, seed: int, epoch: int, steps: int, count: int) -> Tensor | None:
        """Items that all pairs of a step are held against: int64[steps, count], uniform, a function of (seed, epoch).

        None where all items are taken, as there are no more than twice as many.
        """
        if self.n_items <= 2 * count:
            return None
        generator = torch.Generator(self.device)
        generator.manual_seed(derive_seed(seed, "shared", epoch))
        return torch.randint(self.n_items, (steps, count), generator=generator, device=self.device)

    def _below(self, limits: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform int64 in [0, limit) for each limit."""
        # 62 random bits: the bias of the remainder is below 1e-12 for any catalogue.
        return torch.randint(1 << 62, limits.shape, generator=generator, device=self.device) % limits
