"""The Gram matrix of many rows, without a second table of their size."""

from typing import Any

import torch
from torch import Tensor

ROWS = 1 << 14
"""Rows whose products are taken at once."""


def weighted_gram(rows: Tensor, weights: Tensor) -> Tensor:
    """X' diag(w) X, float32[k, k], of rows X float32[m, k] and weights w float32[m]; differentiable in X."""
    return _Gram.apply(rows, weights)  # type: ignore[no-any-return,no-untyped-call]


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        gram = rows.new_zeros(rows.shape[1], rows.shape[1])
        for part, weight in zip(rows.split(ROWS), weights.split(ROWS), strict=True):
            gram += (part * weight[:, None]).T @ part
        return gram

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rows, weights = ctx.saved_tensors
        return (rows @ (gradients[0] + gradients[0].T)).mul_(weights[:, None]), None
