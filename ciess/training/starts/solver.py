"""Masked least squares by conjugate gradients: which table, within a mask, propagates nearest to given vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Solution:
    """What the solver found.

    Attributes:
        table: X, float32[n, k], 0 outside the mask.
        residuals: of each step from the start on, |W^1/2 (G X - F)|^2 + ridge |X|^2 over all columns; it never rises.
    """

    table: Tensor
    residuals: tuple[float, ...]


def masked_least_squares(
    propagate: Operator,
    target: Tensor,
    mask: Tensor,
    start: Tensor,
    ridge: float,
    weights: Tensor | None = None,
    steps: int = 20,
    tolerance: float = 1e-3,
) -> Solution:
    """Minimise |W^1/2 (G (X * M) - F)|^2 + ridge |X * M|^2 over the kept entries of X, all columns at once.

    Conjugate gradients on the least squares themselves (CGLS; Paige and Saunders, 1982), whose residual falls with
    every step; a column that float32 can bring no further keeps the best it had.

    Args:
        propagate: G, symmetric, from float32[n, k] to float32[n, k].
        target: F, float32[n, k].
        mask: M, bool[n, k].
        start: X to begin from, float32[n, k]; entries outside the mask are left out.
        ridge: weight of the squares of X.
        weights: W, float32[n]: how much the rows of F count; all 1 by default.
        steps: most of them.
        tolerance: stop once a step lowers the residual by less than this share of it.

    Returns:
        the table and its residuals.
    """
    kept = mask.to(target.dtype)
    scale = None if weights is None else weights.sqrt()[:, None]

    def forward(x: Tensor) -> Tensor:
        encoded = propagate(x)
        return encoded if scale is None else scale * encoded

    def backward(encoded: Tensor) -> Tensor:
        return kept * propagate(encoded if scale is None else scale * encoded)

    x = start * kept
    error = (target if scale is None else scale * target) - forward(x)
    descent = backward(error) - ridge * x
    direction, norm = descent, _squares(descent)
    best, lowest = x, _squares(error) + ridge * _squares(x)
    residuals = [float(lowest.sum())]
    for _ in range(steps):
        encoded = forward(direction)
        curvature = _squares(encoded) + ridge * _squares(direction)
        length = torch.where(curvature > 0, norm / curvature.clamp(min=torch.finfo(norm.dtype).tiny), 0.0)
        x = x + (length * direction.double()).to(x.dtype)
        error = error - (length * encoded.double()).to(error.dtype)
        now = _squares(error) + ridge * _squares(x)
        better = now < lowest
        best, lowest = torch.where(better, x, best), torch.where(better, now, lowest)
        residuals.append(float(lowest.sum()))
        if residuals[-2] - residuals[-1] <= tolerance * residuals[-1]:
            break
        descent = backward(error) - ridge * x
        before, norm = norm, _squares(descent)
        ratio = torch.where(before > 0, norm / before.clamp(min=torch.finfo(norm.dtype).tiny), 0.0)
        direction = descent + (ratio * direction.double()).to(x.dtype)
    return Solution(best, tuple(residuals))


def _squares(values: Tensor) -> Tensor:
    """Squared norm of each column, float64[k]."""
    return values.double().square().sum(0)
