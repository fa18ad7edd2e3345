"""Items' rows only: a user is the weighted sum of the rows in its history (PureSVD, EigenRec, FISM)."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ciess.config.models import ItemsConfig
from ciess.models.backbone import DotProductBackbone
from ciess.models.embedding import normal_table
from ciess.models.graph import Graph, Normalisation
from ciess.models.history import History

HISTORY_EXPONENT, ITEM_EXPONENT = 0.4, 0.25
"""b and a where neither settings nor a start say them."""


class Items(DotProductBackbone):
    """Score = (Du^-1/2 R Di^-b W)(Di^a W)' of items' rows W, float32[n_items, width]; users have no rows.

    history_weight and item_weight, float32[n_items], hold Di^-b and Di^a: two numbers an item, which training leaves
    alone.
    """

    leaves_one_out = True
    linear = True
    users_have_rows = False
    by_user = ("pair_counts", "user_scale")
    user_scale: Tensor

    def __init__(self, config: ItemsConfig, n_users: int, n_items: int, max_size: int) -> None:
        super().__init__(n_users, n_items, max_size)
        self.config = config
        self.history_weight = nn.Parameter(torch.ones(n_items), requires_grad=False)
        self.item_weight = nn.Parameter(torch.ones(n_items), requires_grad=False)
        self.register_buffer("user_scale", torch.ones(n_users), persistent=False)

    @property
    def normalisation(self) -> Normalisation:
        return "history"

    def initial_table(self, generator: torch.Generator) -> Tensor:
        return normal_table(self.n_users + self.n_items, 1, self.max_size, self.config.initial_scale, generator)

    def adapt(self, degrees: npt.NDArray[np.int64]) -> None:
        super().adapt(degrees)
        config = self.config
        history = HISTORY_EXPONENT if config.history_exponent is None else config.history_exponent
        item = ITEM_EXPONENT if config.item_exponent is None else config.item_exponent
        scale = torch.from_numpy(np.maximum(degrees, 1)).double()
        with torch.no_grad():
            self.history_weight.copy_(scale[self.n_users :] ** -history)
            self.item_weight.copy_(scale[self.n_users :] ** item)
            self.user_scale.copy_(scale[: self.n_users] ** -0.5)

    def encode(self, table: Tensor, graph: Graph | None) -> Tensor:
        assert isinstance(graph, History)
        return graph.encode(self._rows(table), self.history_weight, self.item_weight)

    def _rows(self, table: Tensor) -> Tensor:
        """Items' rows of a table, whether rows of users stand above them or not."""
        return table[-self.n_items :]

    def regularised(self, table: Tensor, encoded: Tensor) -> Tensor:
        if len(table) > self.n_items:
            return table
        return torch.cat([table.new_zeros(self.n_users, table.shape[1]), table])

    def own_share(self, vectors: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """du^-1/2 di^(a-b) |w_i|^2: exactly what item i adds to its own score where it stands in u's history."""
        squares = vectors.square().sum(1) * (self.history_weight / self.item_weight)
        return self.user_scale[users] * squares[items]

    def from_history(self, table: Tensor, graph: Graph | None, items: Tensor) -> Tensor:
        rows = self._rows(table).index_select(0, items) * self.history_weight[items, None]
        vector: Tensor = rows.sum(0) / max(1, len(items)) ** 0.5
        return vector
