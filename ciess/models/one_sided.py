"""LightGCN's propagation where one side alone has rows: half of each product is known to be 0."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ciess.masks.mask import RowSide
from ciess.models.graph import Graph, blocks, csr, without_negligible


class OneSided:
    """Mean of x, A x, ..., A^K x for x of one side, and its transpose.

    As edges lead from side to side, a power of A brings one side's rows to one side only: each layer costs one of the
    two products that a product by A is made of. On a CPU the bits are those of `Graph.average`.
    """

    def __init__(self, graph: Graph, n_users: int, side: RowSide) -> None:
        """graph: symmetric. side: whose rows x holds."""
        self.n_users, self.side = n_users, side
        n = graph.n
        self.rows = slice(0, n_users) if side == "users" else slice(n_users, n)
        halves = [_rows_of(graph.matrix, 0, n_users, n_users, n), _rows_of(graph.matrix, n_users, n, 0, n_users)]
        # From this side to the other, and back.
        self._there, self._back = (halves[1], halves[0]) if side == "users" else (halves[0], halves[1])

    def forward(self, x: Tensor, layers: int) -> Tensor:
        """From float32[rows of the side, k] to float32[n, k]."""
        out = x.new_empty(sum(self._there.shape), x.shape[1])
        own, other = self._parts(out)
        for columns in blocks(x.shape[1], x.device.type):
            begin = without_negligible(x[:, columns])
            near, far = begin, begin.new_zeros(self._there.shape[0], begin.shape[1])
            for layer in range(1, layers + 1):
                # Horner's rule, x + A (x + A (...)), of which each layer changes one side.
                if layer % 2:
                    far = self._there @ near
                else:
                    near = torch.addmm(begin, self._back, far)
            torch.div(near, layers + 1, out=own[:, columns])
            torch.div(far, layers + 1, out=other[:, columns])
        return out

    def backward(self, encoded: Tensor, layers: int) -> Tensor:
        """From float32[n, k] to float32[rows of the side, k]."""
        own, other = self._parts(encoded)
        found = encoded.new_empty(len(own), encoded.shape[1])
        for columns in blocks(encoded.shape[1], encoded.device.type):
            near, far = (without_negligible(part[:, columns]) for part in (own, other))
            total = far if layers % 2 else near
            for layer in range(layers, 0, -1):
                matrix, begin = (self._back, near) if layer % 2 else (self._there, far)
                total = torch.addmm(begin, matrix, total)
            torch.div(total, layers + 1, out=found[:, columns])
        return found

    def _parts(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Views of float32[n, k]: this side's rows and the other's."""
        users, items = rows[: self.n_users], rows[self.n_users :]
        return (users, items) if self.side == "users" else (items, users)


class _Average(torch.autograd.Function):
    """The forward of a side's rows of float32[n, k], whose other rows are 0 and get no gradient."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, half: OneSided, layers: int) -> Tensor:
        ctx.half, ctx.layers = half, layers
        return half.forward(table[half.rows], layers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        found = torch.zeros_like(gradients[0])
        found[ctx.half.rows] = ctx.half.backward(gradients[0], ctx.layers)
        return found, None, None


_KNOWN: WeakKeyDictionary[Graph, dict[tuple[RowSide, torch.device], OneSided]] = WeakKeyDictionary()


def one_sided(graph: Graph, n_users: int, side: RowSide) -> OneSided:
    """Propagation from one side's rows over a symmetric graph, built once a graph."""
    known = _KNOWN.setdefault(graph, {})
    if (side, graph.device) not in known:
        known[side, graph.device] = OneSided(graph, n_users, side)
    return known[side, graph.device]


def one_sided_average(table: Tensor, graph: Graph, n_users: int, side: RowSide, layers: int) -> Tensor:
    """`Graph.average` of float32[n, k] whose rows of the other side are 0; differentiable in this side's rows."""
    half = one_sided(graph, n_users, side)
    return _Average.apply(table, half, layers)  # type: ignore[no-any-return,no-untyped-call]


def _rows_of(matrix: Tensor, first: int, last: int, column: int, end: int) -> Tensor:
    """Rows first..last of a CSR matrix whose entries there lie in the columns column..end."""
    indptr = matrix.crow_indices()[first : last + 1]
    entries = slice(int(indptr[0]), int(indptr[-1]))
    columns, values = matrix.col_indices()[entries] - column, matrix.values()[entries]
    found = csr(
        (indptr - indptr[0]).cpu().numpy(), columns.cpu().numpy(), values.cpu().numpy(), (last - first, end - column)
    )
    return found.to(matrix.device)
