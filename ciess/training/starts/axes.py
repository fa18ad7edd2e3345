"""The leading axes of the normalised training pairs: a truncated SVD."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ciess.data import Pairs
from ciess.models.graph import csr

OVERSAMPLED, POWER_STEPS = 10, 4
"""Axes beyond those wanted, and power steps, of the randomised SVD (Halko et al., SIAM Review 2011)."""


@dataclass(frozen=True, eq=False)
class Axes:
    """Du^-1/2 R Di^-b ~ U S V' of the training pairs R.

    Attributes:
        users: U, float32[n_users, k].
        values: S, float32[k], descending; 0 past the rank.
        items: V, float32[n_items, k].
    """

    users: Tensor
    values: Tensor
    items: Tensor


def leading_axes(pairs: Pairs, n_users: int, n_items: int, exponent: float, rank: int, device: torch.device) -> Axes:
    """The first axes of Du^-1/2 R Di^-exponent.

    Args:
        pairs: R.
        n_users: number of users.
        n_items: number of items.
        exponent: b, of the items' degrees.
        rank: k; columns past the number of rows are 0.
        device: where they are computed, and are.

    Returns:
        the axes; equal arguments give equal bits on a CPU.
    """
    degrees = np.maximum(pairs.degrees(n_users, n_items), 1).astype(np.float64)
    values = degrees[:n_users][pairs.users] ** -0.5 * degrees[n_users:][pairs.items] ** -exponent
    matrix = csr(pairs.indptr(n_users), pairs.items, values, (n_users, n_items)).to(device)
    found = min(rank, n_users, n_items)
    drawn = min(found + OVERSAMPLED, n_users, n_items)
    # svd_lowrank draws from the global generators alone.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(0)
        parts = torch.svd_lowrank(matrix, q=drawn, niter=POWER_STEPS)
    users, singular, items = (part[..., :found] for part in parts)
    # An axis keeps its direction whatever the library's sign: that of its largest entry is positive.
    sign = torch.sign(items.gather(0, items.abs().argmax(0, keepdim=True)))
    sign = torch.where(sign == 0, 1.0, sign)
    return Axes(_padded(users * sign, rank), _padded(singular, rank), _padded(items * sign, rank))


def _padded(values: Tensor, rank: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, rank - values.shape[-1])).contiguous()
