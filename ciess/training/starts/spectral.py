"""The spectral start: rows from the leading axes of the normalised training pairs, in closed form."""

import torch
from torch import Tensor

from ciess.training.prepared import Prepared
from ciess.training.starts.start import Start


def spectral_vectors(prepared: Prepared, start: Start, rank: int) -> Tensor:
    """The vectors F that a table shall encode to, before any cut.

    With Du^-1/2 R Di^-(1/2 - x) ~ U S V': side `items` gives items Di^x V S^p and users Du^-1/2 R Di^-1/2 of these, as
    one step of propagation does; side `users` the same with the roles exchanged; `both` gives users U S^(1-p) and items
    Di^x V S^p.

    Args:
        prepared: parts of the data.
        start: a spectral one.
        rank: columns.

    Returns:
        float32[n, rank], users first.
    """
    x, p = start.exponent, start.power
    n_users, pairs = prepared.n_users, prepared.graph("symmetric")
    assert pairs is not None
    users, items = prepared.degree_scales()
    if start.side == "users":
        axes = prepared.axes(0.5 - x, rank, by_users=True, with_users=False)
        own = users[:, None] ** (-2 * x) * axes.items * powers(axes.values, p)
    else:
        axes = prepared.axes(0.5 - x, rank, with_users=start.side == "both")
        own = items[:, None] ** (-2 * x) * axes.items * powers(axes.values, p)
    if axes.users is not None:
        return torch.cat([axes.users * powers(axes.values, 1 - p), own])
    zeros = own.new_zeros(prepared.n_items if start.side == "users" else n_users, rank)
    stored = torch.cat([own, zeros] if start.side == "users" else [zeros, own])
    return stored + pairs.multiply(stored)


def powers(values: Tensor, power: float) -> Tensor:
    """values^power, 0 where there is no axis."""
    return torch.where(values > 0, values.clamp(min=torch.finfo(values.dtype).tiny) ** power, 0.0)
