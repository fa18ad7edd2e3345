"""Masked least squares by conjugate gradients: which table, within a mask, propagates nearest to given vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ciess.models.graph import blocks

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Solution:
    """What the solver found.

    Attributes:
        table: X, float32[m, k], 0 outside the mask.
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
    transpose: Operator | None = None,
) -> Solution:
    """Minimise |W^1/2 (G (X * M) - F)|^2 + ridge |X * M|^2 over the kept entries of X, all columns at once.

    Conjugate gradients on the least squares themselves (CGLS; Paige and Saunders, 1982), whose residual falls with
    every step; a column that float32 can bring no further keeps the best it had. Columns know nothing of each other:
    each stops by itself, so that what is found for one does not depend on those beside it.

    Args:
        propagate: G, from float32[m, k] to float32[n, k].
        target: F, float32[n, k].
        mask: M, bool[m, k].
        start: X to begin from, float32[m, k]; entries outside the mask are left out.
        ridge: weight of the squares of X.
        weights: W, float32[n]: how much the rows of F count; all 1 by default.
        steps: most of them.
        tolerance: a column stops once a step lowers its residual by less than this share of it.
        transpose: G', by default G itself, which is then symmetric.

    Returns:
        the table and its residuals.
    """
    scale = None if weights is None else weights.sqrt()[:, None]
    transpose = propagate if transpose is None else transpose
    found, paths = torch.empty_like(start), []
    # A block of columns at a time, which stays in cache from the first step to the last.
    for columns in blocks(target.shape[1], target.device.type):
        part, kept, begun = (values[:, columns].contiguous() for values in (target, mask, start))
        found[:, columns], path = _solve(propagate, transpose, part, kept, begun, ridge, scale, steps, tolerance)
        paths.append(path)
    longest = max(map(len, paths), default=1)
    # What a column had when it stopped, it keeps.
    residuals = [sum(path[min(step, len(path) - 1)] for path in paths) for step in range(longest)]
    return Solution(found, tuple(residuals))


def _solve(
    propagate: Operator,
    transpose: Operator,
    target: Tensor,
    mask: Tensor,
    start: Tensor,
    ridge: float,
    scale: Tensor | None,
    steps: int,
    tolerance: float,
) -> tuple[Tensor, list[float]]:
    kept = mask.to(target.dtype)

    def forward(x: Tensor) -> Tensor:
        encoded = propagate(x)
        return encoded if scale is None else scale * encoded

    def backward(encoded: Tensor) -> Tensor:
        return kept * transpose(encoded if scale is None else scale * encoded)

    x = start * kept
    error = (target if scale is None else scale * target) - forward(x)
    descent = backward(error) - ridge * x
    direction, norm = descent, _squares(descent)
    best, lowest = x, _squares(error) + ridge * _squares(x)
    residuals = [float(lowest.sum())]
    going = torch.ones_like(lowest, dtype=torch.bool)
    tiny = torch.finfo(norm.dtype).tiny
    for _ in range(steps):
        encoded = forward(direction)
        curvature = _squares(encoded) + ridge * _squares(direction)
        length = torch.where(curvature > 0, norm / curvature.clamp(min=tiny), 0.0).to(x.dtype)
        x = torch.addcmul(x, direction, length)
        error = torch.addcmul(error, encoded, length, value=-1)
        now = _squares(error) + ridge * _squares(x)
        better = going & (now < lowest)
        gained = torch.where(better, lowest - now, 0.0)
        best, lowest = torch.where(better, x, best), torch.where(better, now, lowest)
        residuals.append(float(lowest.sum()))
        going = going & (gained > tolerance * lowest)
        if not bool(going.any()):
            break
        descent = backward(error) - ridge * x
        before, norm = norm, _squares(descent)
        ratio = torch.where(before > 0, norm / before.clamp(min=tiny), 0.0).to(x.dtype)
        direction = torch.addcmul(descent, direction, ratio)
    return best, residuals


def _squares(values: Tensor) -> Tensor:
    """Squared norm of each column, float64[k]."""
    return values.square().sum(0, dtype=torch.float64)
