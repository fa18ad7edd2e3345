"""Soft thresholds that are learned with the table they prune (Liu et al., ICLR 2021)."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Granularity = Literal["global", "dimension", "feature", "feature_dim"]


class _SoftThreshold(torch.autograd.Function):
    """The soft threshold with its gradient by formula: autograd's own would keep a table for each of its operations."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, logits: Tensor, scale: float) -> Tensor:
        threshold = scale * logits.sigmoid()
        # v - v is exactly 0, and no other difference of floats is: what is not 0 is what the threshold leaves.
        shrunk = table - torch.clamp(table, min=-threshold, max=threshold)
        ctx.save_for_backward(shrunk, threshold)
        ctx.scale = scale
        return shrunk

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        shrunk, threshold = ctx.saved_tensors
        (gradient,) = gradients
        slope = threshold * (1 - threshold / ctx.scale)
        into_logits = -(shrunk.sign() * gradient).sum_to_size(threshold.shape) * slope
        return torch.where(shrunk != 0, gradient, 0), into_logits, None


def soft_threshold(table: Tensor, logits: Tensor, scale: float = 1.0) -> Tensor:
    """sign(v) max(|v| - g, 0), g = scale sigmoid(s), for float32[n, width] v and s of a shape that broadcasts to it.

    Where |v| > g the gradient is 1 in v and -sign(v) g (1 - g / scale) in s; elsewhere it is 0.
    """
    shrunk: Tensor = _SoftThreshold.apply(table, logits, scale)  # type: ignore[no-untyped-call]
    return shrunk


class ThresholdedEmbedding(nn.Module):
    """A table under learned soft thresholds, which stands in the place of the masked table.

    weight: float32[n, tables * max_size]. logits: s, of shape [1, 1] for granularity `global`, [1, width] for
    `dimension`, [n, 1] for `feature`, [n, width] for `feature_dim` (published code).
    """

    def __init__(self, initial: Tensor, initial_logit: float, scale: float, granularity: Granularity) -> None:
        """initial: float32[n, tables, max_size]. scale: of the thresholds, scale sigmoid(s)."""
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(initial.reshape(len(initial), -1).clone())
        rows, columns = self.weight.shape
        shape = (
            rows if granularity in ("feature", "feature_dim") else 1,
            columns if granularity in ("dimension", "feature_dim") else 1,
        )
        self.logits = nn.Parameter(torch.full(shape, initial_logit, device=initial.device))

    def forward(self) -> Tensor:
        return soft_threshold(self.weight, self.logits, self.scale)

    def thresholds(self) -> Tensor:
        """Of the shape of `logits`, without a gradient."""
        return self.scale * self.logits.detach().sigmoid()

    def margins(self) -> Tensor:
        """|v| - threshold, float32[n, width] without a gradient: positive where the entry is kept."""
        return self.weight.detach().abs() - self.thresholds()

    def kept(self) -> int:
        """Entries that the thresholds leave."""
        return int((self.weight.detach().abs() > self.thresholds()).sum())


def largest(margins: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.bool_]:
    """The `count` largest of float32[n, width] as bool[n, width], equal ones by position."""
    chosen = np.zeros(margins.size, dtype=np.bool_)
    chosen[np.argsort(-margins, axis=None, kind="stable")[:count]] = True
    return chosen.reshape(margins.shape)
