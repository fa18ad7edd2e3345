"""The user-item graph and the one place that multiplies by its adjacency.

The adjacency is a CSR matrix with int32 indices; a table is multiplied in blocks of columns that stay in cache.
Kernel and block width come from `KERNELS`, a committed table of measurements (`ciess bench` prints them anew),
so that equal configs give equal bits.
"""

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ciess.data import Pairs

Normalisation = Literal["symmetric", "row", "history"]


@dataclass(frozen=True)
class Kernel:
    """How a product is computed: columns a block; 0 takes all columns at once."""

    block: int


# Milliseconds of one product A x on MovieLens-1M (1.0 M directed edges, n = 9,746), 1 thread of an AMD EPYC (Zen 5):
# blocks of 16 / 32 / 64 / 128 columns give 8.2 / 7.4 / 10.6 / 11.4 at 128 columns; an NVIDIA H200 0.46 / 0.24 / 0.13 /
# 0.07 (as a dense product of 6,040 x 3,706, both ways: 0.28), and on Yelp2018 0.88 / 0.48 / 0.27 / 0.14.
KERNELS = {"cpu": Kernel(block=32), "cuda": Kernel(block=0)}

NEGLIGIBLE = 1e-20
"""Magnitude from which on a CPU's products take an entry for 0. Entries that training gives up fall until they, or what
the layers make of them, are no normal floats, with which a processor is slow: a table of PEP at 95 % took 127 ms for
three layers where 40 were due. Beside such an entry no score and no step of Adam would see it."""


def csr(
    indptr: npt.NDArray[Any], columns: npt.NDArray[Any], values: npt.NDArray[Any], shape: tuple[int, int]
) -> Tensor:
    """Sparse CSR tensor of a shape with int32 indices, which MKL and cuSPARSE take as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            torch.from_numpy(indptr.astype(np.int32)),
            torch.from_numpy(columns.astype(np.int32)),
            torch.from_numpy(values.astype(np.float32)),
            shape,
            check_invariants=False,
        )


def with_values(matrix: Tensor, values: Tensor) -> Tensor:
    """A sparse matrix with the entries of another and these values."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            matrix.crow_indices(), matrix.col_indices(), values, matrix.shape, check_invariants=False
        )


def blocks(width: int, device_type: str) -> list[slice]:
    """Column blocks of equal width, at most the kernel's, that cover `width` columns."""
    limit = KERNELS.get(device_type, KERNELS["cuda"]).block
    count = -(-width // limit) if limit else 1
    edges = [round(width * i / max(count, 1)) for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def without_negligible(x: Tensor) -> Tensor:
    """The values as a table of their own, on a CPU without negligible entries."""
    block = x.contiguous()
    return functional.hardshrink(block, NEGLIGIBLE) if x.device.type == "cpu" else block


def product(x: Tensor, matrix: Tensor, out: Tensor | None = None) -> Tensor:
    """Matrix @ x in blocks of columns, float32[rows of the matrix, width]; written to `out`, where it is given."""
    out = x.new_empty(matrix.shape[0], x.shape[1]) if out is None else out
    for columns in blocks(x.shape[1], x.device.type):
        out[:, columns] = matrix @ without_negligible(x[:, columns])
    return out


def _average(x: Tensor, matrix: Tensor, layers: int) -> Tensor:
    """Each block of columns goes through all layers at once, by Horner's rule."""
    out = torch.empty_like(x)
    for columns in blocks(x.shape[1], x.device.type):
        block = without_negligible(x[:, columns])
        total = block
        for _ in range(layers):
            total = torch.addmm(block, matrix, total)
        torch.div(total, layers + 1, out=out[:, columns])
    return out


class _Product(torch.autograd.Function):
    """y = A x, with A' for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.transpose = transpose
        return product(x, matrix)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return product(gradients[0], ctx.transpose), None, None


class _Average(torch.autograd.Function):
    """(x + A x + ... + A^K x) / (K + 1) for a symmetric A, which is its own gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, layers: int) -> Tensor:
        ctx.matrix, ctx.layers = matrix, layers
        return _average(x, matrix, layers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _average(gradients[0], ctx.matrix, ctx.layers), None, None


class Graph:
    """Adjacency of the training pairs over n = n_users + n_items rows, users first.

    normalisation: `symmetric` is D^-1/2 A D^-1/2 without self loops (LightGCN); `row` is (D+I)^-1 (A+I), the
    original NGCF code's. Rows without an edge stay zero (symmetric) or map to themselves (row).
    """

    def __init__(self, pairs: Pairs, n_users: int, n_items: int, normalisation: Normalisation = "symmetric"):
        n = n_users + n_items
        users, items = pairs.users.astype(np.int64), pairs.items.astype(np.int64) + n_users
        loops = np.arange(n) if normalisation == "row" else np.arange(0)
        rows, columns = np.concatenate([users, items, loops]), np.concatenate([items, users, loops])
        order = np.lexsort((columns, rows))
        rows, columns = rows[order], columns[order]
        degrees = np.bincount(rows, minlength=n)
        indptr = np.concatenate([[0], np.cumsum(degrees)])
        inverse = 1.0 / np.maximum(degrees, 1)
        values = inverse[rows] if normalisation == "row" else np.sqrt(inverse[rows] * inverse[columns])
        self.normalisation = normalisation
        self.matrix = csr(indptr, columns, values, (n, n))
        # The pattern is symmetric, so the transpose has the same indices and its values in another order.
        self._transposition = torch.from_numpy(np.lexsort((rows, columns)))
        self.transpose = (
            self.matrix if normalisation == "symmetric" else self._with(self.matrix.values(), transposed=True)
        )

    def _with(self, values: Tensor, transposed: bool) -> Tensor:
        return with_values(self.matrix, values.index_select(0, self._transposition) if transposed else values)

    @property
    def n(self) -> int:
        """Rows: users and items."""
        return int(self.matrix.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the matrices are."""
        return self.matrix.device

    def to(self, device: torch.device) -> "Graph":
        """Move the matrices; returns self."""
        self.matrix, self._transposition = self.matrix.to(device), self._transposition.to(device)
        symmetric = self.normalisation == "symmetric"
        self.transpose = self.matrix if symmetric else self._with(self.matrix.values(), transposed=True)
        return self

    def multiply(self, x: Tensor) -> Tensor:
        """A x for x: float32[columns of A, width]; differentiable in x."""
        return _Product.apply(x, self.matrix, self.transpose)  # type: ignore[no-any-return,no-untyped-call]

    def average(self, x: Tensor, layers: int) -> Tensor:
        """Mean of x, A x, ..., A^layers x (LightGCN's propagation); differentiable in x. Needs a symmetric graph."""
        assert self.normalisation == "symmetric"
        return _Average.apply(x, self.matrix, layers)  # type: ignore[no-any-return,no-untyped-call]

    def dropped(self, share: float, generator: torch.Generator) -> "Graph":
        """The graph without a random share of its entries, the others scaled by 1 / (1 - share) (node dropout)."""
        graph = Graph.__new__(Graph)
        graph.normalisation, graph._transposition, graph.matrix = "row", self._transposition, self.matrix
        values = self.matrix.values()
        keep = torch.empty_like(values).bernoulli_(1 - share, generator=generator)
        values = values * keep / (1 - share)
        graph.matrix, graph.transpose = self._with(values, transposed=False), self._with(values, transposed=True)
        return graph


def kernels() -> dict[str, dict[str, int]]:
    """The kernel table that propagation uses."""
    return {device: {"block": kernel.block} for device, kernel in KERNELS.items()}
