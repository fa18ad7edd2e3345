"""Rows of different sizes, mapped to one size by a chain of learned maps (ESAPN, Liu et al., SIGIR 2020)."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ciess.errors import InputError
from ciess.masks.mask import Mask, PrefixMask


class Chain(nn.Module):
    """Linear maps from each size to the next, and the normalisation after the last, of one side and table.

    forward: from float32[rows, sizes[l]] a level and the levels int64[rows] to float32[rows, sizes[-1]]. Levels above
    those that are given have no rows.
    """

    def __init__(self, sizes: tuple[int, ...], bn_tanh: bool) -> None:
        super().__init__()
        # skip_init: whoever makes a chain draws or loads its weights, and the global generator is left alone.
        self.maps = nn.ModuleList(nn.utils.skip_init(nn.Linear, a, b) for a, b in pairwise(sizes))
        self.scale = nn.Parameter(torch.ones(sizes[-1])) if bn_tanh else None
        self.shift = nn.Parameter(torch.zeros(sizes[-1])) if bn_tanh else None

    def reset_parameters(self, scale: float, generator: torch.Generator) -> None:
        """Draw the maps for an output of standard deviation `scale` where it is normalised."""
        for layer in self.maps:
            assert isinstance(layer, nn.Linear)
            # A map keeps the variance of its inputs, so that no size starts larger than another.
            bound = (3 / layer.in_features) ** 0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.zeros_(layer.bias)
        if self.scale is not None:
            nn.init.constant_(self.scale, scale)

    def forward(self, parts: list[Tensor], levels: Tensor) -> Tensor:
        values = parts[0]
        for level, layer in enumerate(self.maps):
            mapped = layer(values)
            # Rows above this level are replaced again and again until their own level is reached.
            own = level + 1 < len(parts)
            values = torch.where(levels[:, None] > level, parts[level + 1], mapped) if own else mapped
        if self.scale is None:
            return values
        # All rows of the side are one batch, so its own statistics serve in evaluation, too.
        return torch.tanh(functional.batch_norm(values, None, None, self.scale, self.shift, training=True))


class ChainedEmbedding(nn.Module):
    """A masked table whose rows a chain maps to one size: what is kept is small, what the backbone gets is not.

    weight: float32[n, tables * width], width = mask.width; row n has its first sizes[n] columns of each table, the
    others are zero and stay so. `forward()` returns float32[n, tables * largest size of the chain].
    """

    levels: Tensor

    def __init__(self, initial: Tensor, mask: Mask, tables: int, decoder: Mapping[str, Tensor], n_users: int) -> None:
        """initial: float32[n, tables, max_size]. decoder: what `decoder_weights` gives.

        Raises InputError where decoder and mask do not fit together.
        """
        super().__init__()
        sizes = sizes_of(decoder)
        if not isinstance(mask, PrefixMask) or not set(mask.sizes.tolist()) <= set(sizes):
            found = "single entries" if not isinstance(mask, PrefixMask) else sorted(set(mask.sizes.tolist()))
            raise InputError(
                f"The mask keeps {found} a row, but the chain maps rows of the sizes {', '.join(map(str, sizes))}. "
                "Give the mask and the decoder of one ESAPN search."
            )
        self.sizes, self.tables, self.width, self.n_users = sizes, tables, mask.width, n_users
        kept = torch.from_numpy(mask.dense(self.width)).to(initial.device)[:, None, :]
        self.weight = nn.Parameter((initial[:, :, : self.width] * kept).reshape(len(initial), -1))
        self.register_buffer("levels", torch.from_numpy(np.searchsorted(sizes, mask.sizes)), persistent=False)
        bn_tanh = "decoder.0.scale" in decoder
        self.decoder = nn.ModuleList(Chain(sizes, bn_tanh) for _ in range(2 * tables))
        expected = {name: tuple(value.shape) for name, value in self.decoder_weights().items()}
        found_shapes = {name: tuple(value.shape) for name, value in decoder.items()}
        if found_shapes != expected:
            raise InputError(
                f"The decoder has the weights {found_shapes}, but {expected} were expected. Give all that one ESAPN "
                "search has found."
            )
        with torch.no_grad():
            for name, value in self.decoder_weights().items():
                value.copy_(decoder[name])

    def decoder_weights(self) -> dict[str, Tensor]:
        """Parameters of the chains by name: chain 2 t + side is of table t and users (0) or items (1)."""
        return {f"decoder.{name}": value for name, value in self.decoder.named_parameters()}

    def forward(self) -> Tensor:
        sides = (slice(0, self.n_users), slice(self.n_users, None))
        used = [size for size in self.sizes if size <= self.width]
        columns = []
        for table in range(self.tables):
            first = table * self.width
            halves = []
            for side, rows in enumerate(sides):
                parts = [self.weight[rows, first : first + size] for size in used]
                halves.append(self.decoder[2 * table + side](parts, self.levels[rows]))
            columns.append(torch.cat(halves))
        return columns[0] if self.tables == 1 else torch.cat(columns, dim=1)


def sizes_of(decoder: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The sizes that a chain maps between, by the shapes of its maps.

    Args:
        decoder: weights of the chain by name.

    Returns:
        ascending sizes.

    Raises:
        InputError: there are no maps among the weights.
    """
    shapes: list[tuple[int, ...]] = []
    while (name := f"decoder.0.maps.{len(shapes)}.weight") in decoder:
        shapes.append(tuple(decoder[name].shape))
    if not shapes:
        raise InputError(
            f"The decoder has the weights {', '.join(sorted(decoder)) or 'none'}, but maps named "
            "decoder.0.maps.0.weight and on were expected. Give what an ESAPN search has found."
        )
    return (shapes[0][1], *(shape[0] for shape in shapes))


def decoded(
    table: Tensor, mask: Mask, tables: int, decoder: Mapping[str, Tensor], n_users: int, device: torch.device
) -> Tensor:
    """float32[n, tables * largest size] of a stored table float32[n, tables * mask.width]; InputError as above."""
    rows = table.reshape(len(table), tables, mask.width)
    chained = ChainedEmbedding(rows, mask, tables, decoder, n_users).to(device)
    values: Tensor = chained()
    return values.detach()
