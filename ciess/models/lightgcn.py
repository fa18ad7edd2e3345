"""LightGCN (He et al., SIGIR 2020): averaged linear propagation, scores by dot product."""

import torch
from torch import Tensor

from ciess.config.models import LightGCNConfig
from ciess.models.backbone import Backbone
from ciess.models.embedding import normal_table
from ciess.models.graph import Graph, Normalisation


class DotProductBackbone(Backbone):
    """Scores by dot product of the encoded vectors."""

    def margin(self, encoded: Tensor, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        # One look-up for all three: its gradient is then one scatter instead of three.
        rows = torch.cat([users, positives + self.n_users, negatives + self.n_users])
        user, positive, negative = encoded.index_select(0, rows).chunk(3)
        return (user * (positive - negative)).sum(1)

    def score_all(self, encoded: Tensor, users: Tensor) -> Tensor:
        return encoded.index_select(0, users) @ encoded[self.n_users :].T


class LightGCN(DotProductBackbone):
    """E^(k+1) = A E^(k), vectors = mean of E^(0)..E^(K). The table is the only parameter.

    Columns never mix, so a table of fewer columns is the same model without the others.
    """

    def __init__(self, config: LightGCNConfig, n_users: int, n_items: int, max_size: int) -> None:
        super().__init__(n_users, n_items, max_size)
        self.config = config

    @property
    def normalisation(self) -> Normalisation:
        return "symmetric"

    def initial_table(self, generator: torch.Generator) -> Tensor:
        return normal_table(self.n_users + self.n_items, 1, self.max_size, self.config.initial_scale, generator)

    def encode(self, table: Tensor, graph: Graph | None) -> Tensor:
        assert graph is not None
        return graph.average(table, self.config.layers)
