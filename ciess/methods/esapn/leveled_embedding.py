"""Embeddings whose sizes grow (ESAPN, Liu et al., SIGIR 2020): a table a size, and maps from each size to the next."""

import torch
from torch import Tensor, nn

from ciess.models.chained_embedding import Chain

Sides = tuple[slice, slice]
"""Rows of the users, rows of the items."""


class LeveledEmbedding(nn.Module):
    """Hard selection: row n has one of the sizes, that of its level, and is mapped to the largest through the chain.

    A backbone with several tables an entity (NCF) has one level an entity, and chains of their own for each side and
    table. `forward()` returns float32[n, tables * sizes[-1]]: the width of the backbone's table is the largest size,
    which may be below max_size. Batch normalisation and tanh after the chain are those of the published code; its scale
    starts at that of the backbone's initial table instead of 1, as no further layer follows (not given).

    Attributes:
        weights: of each size float32[n, tables * size].
        levels: int64[n], positions in sizes.
    """

    levels: Tensor

    def __init__(
        self, initial: Tensor, sizes: tuple[int, ...], sides: Sides, bn_tanh: bool, generator: torch.Generator
    ) -> None:
        """initial: float32[n, tables, max_size], whose first columns each size starts from."""
        super().__init__()
        n, self.tables, _ = initial.shape
        self.sizes, self.sides = sizes, sides
        self.weights = nn.ParameterList([initial[:, :, :size].reshape(n, -1).clone() for size in sizes])
        self.chains = nn.ModuleList()
        for rows in sides:
            for table in range(self.tables):
                chain = Chain(sizes, bn_tanh)
                chain.reset_parameters(float(initial[rows, table].square().mean().sqrt()), generator)
                self.chains.append(chain)
        self.register_buffer("levels", torch.zeros(n, dtype=torch.int64))

    def forward(self) -> Tensor:
        columns = []
        for table in range(self.tables):
            halves = []
            for side, rows in enumerate(self.sides):
                parts = [weight[rows, self._columns(level, table)] for level, weight in enumerate(self.weights)]
                halves.append(self.chains[side * self.tables + table](parts, self.levels[rows]))
            columns.append(torch.cat(halves))
        return columns[0] if self.tables == 1 else torch.cat(columns, dim=1)

    @torch.no_grad()
    def enlarge(self, chosen: Tensor) -> None:
        """Give the rows bool[n] the next size; the row of that size is the map of the old one (warm copy).

        So the output stays as it is at that moment. Rows of the largest size must not be chosen.
        """
        before = self.levels.clone()
        self.levels += chosen
        for level in range(len(self.sizes) - 1):
            growing = chosen & (before == level)
            for table in range(self.tables):
                old, new = self._columns(level, table), self._columns(level + 1, table)
                for side, rows in enumerate(self.sides):
                    chain = self.chains[side * self.tables + table]
                    assert isinstance(chain, Chain)
                    target = self.weights[level + 1][rows, new]
                    grown = chain.maps[level](self.weights[level][rows, old])
                    target.copy_(torch.where(growing[rows, None], grown, target))

    def rows(self, max_size: int) -> Tensor:
        """float32[n, tables, max_size]: of each row the columns of its own size, zero beyond."""
        table = torch.zeros(len(self.levels), self.tables, max_size, device=self.levels.device)
        for level, (size, weight) in enumerate(zip(self.sizes, self.weights, strict=True)):
            own = weight.detach().reshape(len(weight), self.tables, size)
            table[:, :, :size] = torch.where((self.levels == level)[:, None, None], own, table[:, :, :size])
        return table

    def decoder_weights(self) -> dict[str, Tensor]:
        """Parameters of the chains under the names of `ChainedEmbedding`."""
        found: dict[str, Tensor] = {}
        for number, chain in enumerate(self.chains):
            side, table = divmod(number, self.tables)
            found |= {f"decoder.{2 * table + side}.{name}": value for name, value in chain.named_parameters()}
        return found

    @property
    def growable(self) -> Tensor:
        """bool[n], rows below the largest size."""
        return self.levels < len(self.sizes) - 1

    def row_sizes(self) -> Tensor:
        """int64[n], the size of each row."""
        return torch.tensor(self.sizes, device=self.levels.device)[self.levels]

    def _columns(self, level: int, table: int) -> slice:
        return slice(table * self.sizes[level], (table + 1) * self.sizes[level])
