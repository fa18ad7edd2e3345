"""LightGCN's propagation where one side alone has rows: half of each product is known to be 0."""

from typing import Literal

import torch
from torch import Tensor

from ciess.models.graph import Graph, csr, product

Side = Literal["users", "items"]


class OneSided:
    """Mean of x, A x, ..., A^K x for x of one side, and its transpose.

    As edges lead from side to side, a power of A brings one side's rows to one side only: each layer costs one of the
    two products that a product by A is made of.
    """

    def __init__(self, graph: Graph, n_users: int, side: Side, layers: int) -> None:
        """graph: symmetric. side: whose rows x holds. layers: K."""
        self.layers, self.n_users, self.side = layers, n_users, side
        n = graph.n
        self.rows = slice(0, n_users) if side == "users" else slice(n_users, n)
        halves = [_rows_of(graph.matrix, 0, n_users, n_users, n), _rows_of(graph.matrix, n_users, n, 0, n_users)]
        # From this side to the other, and back.
        self._there, self._back = (halves[1], halves[0]) if side == "users" else (halves[0], halves[1])

    def forward(self, x: Tensor) -> Tensor:
        """From float32[rows of the side, k] to float32[n, k]."""
        totals: list[Tensor | None] = [x, None]
        power = x
        for layer in range(1, self.layers + 1):
            power = product(power, self._there if layer % 2 else self._back)
            before = totals[layer % 2]
            totals[layer % 2] = power if before is None else before + power
        own, other = totals
        assert own is not None
        if other is None:
            other = own.new_zeros(self._there.shape[0], own.shape[1])
        parts = [own, other] if self.side == "users" else [other, own]
        return torch.cat(parts) / (self.layers + 1)

    def backward(self, encoded: Tensor) -> Tensor:
        """From float32[n, k] to float32[rows of the side, k]."""
        users, items = encoded[: self.n_users], encoded[self.n_users :]
        own, other = (users, items) if self.side == "users" else (items, users)
        # Horner's rule from the last power inwards; of each step one side alone is needed.
        total = other if self.layers % 2 else own
        for layer in range(self.layers, 0, -1):
            total = product(total, self._back if layer % 2 else self._there)
            total = total + (own if layer % 2 else other)
        return total / (self.layers + 1)


def _rows_of(matrix: Tensor, first: int, last: int, column: int, end: int) -> Tensor:
    """Rows first..last of a CSR matrix whose entries there lie in the columns column..end."""
    indptr = matrix.crow_indices()[first : last + 1]
    entries = slice(int(indptr[0]), int(indptr[-1]))
    columns, values = matrix.col_indices()[entries] - column, matrix.values()[entries]
    found = csr(
        (indptr - indptr[0]).cpu().numpy(), columns.cpu().numpy(), values.cpu().numpy(), (last - first, end - column)
    )
    return found.to(matrix.device)
