"""The embedding table with its mask (Eq. 1-2), and how it is drawn."""

import math

import torch
from torch import Tensor, nn

from ciess.masks.mask import Mask


class MaskedEmbedding(nn.Module):
    """E o M of Eq. 1: a table of which only the masked-in entries are used and learned.

    weight: float32[n, tables * width], of each table the first width = mask.width columns; columns that no row
    keeps do not exist. `forward()` returns the masked table of the same shape.
    """

    mask: Tensor | None

    def __init__(self, initial: Tensor, mask: Mask, tables: int) -> None:
        """initial: float32[n, tables, max_size], all columns drawn whatever the mask."""
        super().__init__()
        width = mask.width
        self.weight = nn.Parameter(initial[:, :, :width].reshape(len(initial), tables * width).clone())
        kept = torch.from_numpy(mask.dense(width)).to(initial.device)
        if kept.shape[1] != tables * width:
            kept = kept.repeat(1, tables)
        self.register_buffer("mask", None if bool(kept.all()) else kept.to(torch.float32), persistent=False)

    def forward(self) -> Tensor:
        return self.weight if self.mask is None else self.weight * self.mask


def normal_table(n: int, tables: int, max_size: int, scale: float, generator: torch.Generator) -> Tensor:
    """float32[n, tables, max_size] from N(0, scale^2)."""
    return torch.empty(n, tables, max_size).normal_(0.0, scale, generator=generator)


def xavier_table(n_users: int, n_items: int, max_size: int, generator: torch.Generator) -> Tensor:
    """float32[n, 1, max_size], Xavier-uniform of the user table and of the item table."""
    parts = [
        torch.empty(rows, 1, max_size).uniform_(-1, 1, generator=generator) * math.sqrt(6 / (rows + max_size))
        for rows in (n_users, n_items)
    ]
    return torch.cat(parts)
