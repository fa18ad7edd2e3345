"""Who has which items in its history, as a matrix from items to users: all that a backbone without a graph needs."""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ciess.data import Pairs
from ciess.models.graph import Graph, Normalisation, csr, product, with_values

CHUNK = 1 << 16
"""Pairs whose dot products are taken at once: rows of 128 columns then stay below 64 MiB."""


class History(Graph):
    """Du^-1/2 R: float32[n_users, n_items], the training pairs of each user over the root of their number.

    What only gradients need is made when it is first asked for.
    """

    def __init__(self, pairs: Pairs, n_users: int, n_items: int) -> None:
        self.normalisation: Normalisation = "history"
        self._of, self._shape, self._device = pairs, (n_users, n_items), torch.device("cpu")
        self.matrix = csr(pairs.indptr(n_users), pairs.items, self._values, self._shape)

    @property
    def _values(self) -> npt.NDArray[np.float64]:
        degrees = np.bincount(self._of.users, minlength=self._shape[0])
        found: npt.NDArray[np.float64] = (1 / np.sqrt(np.maximum(degrees, 1)))[self._of.users]
        return found

    @functools.cached_property
    def _order(self) -> Tensor:
        """Of the pairs by item, int64[m]."""
        # Pairs are sorted by user, which a stable sort keeps.
        return torch.from_numpy(np.argsort(self._of.items, kind="stable")).to(self._device)

    @functools.cached_property
    def by_item(self) -> Tensor:
        """The transpose, R' Du^-1/2: float32[n_items, n_users]."""
        order, n_items = self._order.cpu().numpy(), self._shape[1]
        pointers = np.concatenate([[0], np.cumsum(np.bincount(self._of.items, minlength=n_items))])
        return csr(pointers, self._of.users[order], self._values[order], self._shape[::-1]).to(self._device)

    @functools.cached_property
    def pairs(self) -> Tensor:
        """Users and items of the pairs, int64[2, m]."""
        return torch.from_numpy(np.stack([self._of.users, self._of.items]).astype(np.int64)).to(self._device)

    def to(self, device: torch.device) -> "History":
        self.matrix, self._device = self.matrix.to(device), device
        return self

    def encode(self, rows: Tensor, history_weight: Tensor, item_weight: Tensor) -> Tensor:
        """Vectors of users and items, float32[n_users + n_items, w], from items' rows float32[n_items, w].

        A user is Du^-1/2 R (history_weight * rows), an item item_weight * its row, for weights float32[n_items].
        Differentiable in the rows, without a second table of all users' size.
        """
        return _Encoded.apply(rows, history_weight, item_weight, self)  # type: ignore[no-any-return,no-untyped-call]

    def pair_dots(self, users: Tensor, items: Tensor) -> Tensor:
        """Dot products of all training pairs' vectors, float32[m], of float32[n_users, w] and float32[n_items, w].

        Differentiable: the gradients are two sparse products, where those of look-ups would be scattered row by row.
        """
        return _PairDots.apply(users, items, self)  # type: ignore[no-any-return,no-untyped-call]


class _Encoded(torch.autograd.Function):
    """Users' vectors above items', written to one table."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, history_weight: Tensor, item_weight: Tensor, history: History) -> Tensor:
        ctx.save_for_backward(history_weight, item_weight)
        ctx.history = history
        n_users = history.matrix.shape[0]
        out = rows.new_empty(n_users + len(rows), rows.shape[1])
        product(rows * history_weight[:, None], history.matrix, out[:n_users])
        out[n_users:] = rows * item_weight[:, None]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        history_weight, item_weight = ctx.saved_tensors
        history, n_users = ctx.history, ctx.history.matrix.shape[0]
        of_users, of_items = gradients[0][:n_users], gradients[0][n_users:]
        rows = product(of_users, history.by_item).mul_(history_weight[:, None])
        return rows.addcmul_(of_items, item_weight[:, None]), None, None, None


class _PairDots(torch.autograd.Function):
    """y_k = <p_u(k), q_i(k)> for every training pair k."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, history: History) -> Tensor:
        ctx.save_for_backward(users, items)
        ctx.history = history
        dots = users.new_empty(history.pairs.shape[1])
        # Written in place: what a chunk leaves behind would keep the C library from using its memory again.
        for out, u, i in zip(dots.split(CHUNK), *(codes.split(CHUNK) for codes in history.pairs), strict=True):
            torch.sum(users.index_select(0, u).mul_(items.index_select(0, i)), 1, out=out)
        return dots

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        users, items = ctx.saved_tensors
        history, values = ctx.history, gradients[0].contiguous()
        of_users = product(items, with_values(history.matrix, values))
        of_items = product(users, with_values(history.by_item, values[history._order]))
        return of_users, of_items, None


def build_graph(pairs: Pairs, n_users: int, n_items: int, normalisation: Normalisation) -> Graph:
    """What a backbone of this normalisation encodes on.

    Args:
        pairs: of training.
        n_users: number of users.
        n_items: number of items.
        normalisation: as `Backbone.normalisation` says.

    Returns:
        the graph, on the CPU.
    """
    if normalisation == "history":
        return History(pairs, n_users, n_items)
    return Graph(pairs, n_users, n_items, normalisation)
