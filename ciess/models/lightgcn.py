"""LightGCN (He et al., SIGIR 2020): averaged linear propagation, scores by dot product."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ciess.config.models import LightGCNConfig
from ciess.models.backbone import DotProductBackbone
from ciess.models.embedding import normal_table
from ciess.models.graph import Graph, Normalisation
from ciess.models.one_sided import one_sided_average


class LightGCN(DotProductBackbone):
    """E^(k+1) = A E^(k), vectors = mean of E^(0)..E^(K). The table is the only parameter.

    Columns never mix, so a table of fewer columns is the same model without the others.
    """

    leaves_one_out = True
    linear = True
    scale: Tensor

    def __init__(self, config: LightGCNConfig, n_users: int, n_items: int, max_size: int) -> None:
        super().__init__(n_users, n_items, max_size)
        self.config = config
        self.register_buffer("scale", torch.ones(n_users + n_items), persistent=False)

    @property
    def normalisation(self) -> Normalisation:
        return "symmetric"

    def initial_table(self, generator: torch.Generator) -> Tensor:
        return normal_table(self.n_users + self.n_items, 1, self.max_size, self.config.initial_scale, generator)

    def encode(self, table: Tensor, graph: Graph | None) -> Tensor:
        assert graph is not None
        if self.stored_side is None:
            return graph.average(table, self.config.layers)
        return one_sided_average(table, graph, self.n_users, self.stored_side, self.config.layers)

    def adapt(self, degrees: npt.NDArray[np.int64]) -> None:
        super().adapt(degrees)
        self.scale.copy_(torch.from_numpy(np.maximum(degrees, 1)).double() ** -0.5)

    def own_share(self, vectors: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """(du di)^-1/2 |f_i|^2: what the pair's edge brings of the item to the user, in the first hop.

        Exact where users have no rows and the layers are odd: their vectors are then Du^-1/2 R Di^-1/2 F_i.
        """
        squares = vectors.square().sum(1) * self.scale[self.n_users :]
        return self.scale[users] * squares[items]

    def from_history(self, table: Tensor, graph: Graph | None, items: Tensor) -> Tensor:
        """The items' lower layers, averaged as propagation does for a user of this history without a row."""
        assert graph is not None
        layers = self.config.layers
        lower = graph.average(table, layers - 1) * (layers / (layers + 1))
        rows = (lower * self.scale[:, None]).index_select(0, items + self.n_users)
        vector: Tensor = rows.sum(0) / max(1, len(items)) ** 0.5
        return vector
