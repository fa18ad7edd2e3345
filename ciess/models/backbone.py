"""What every backbone offers to training, evaluation and serving (F of Eq. 3)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ciess.models.graph import Graph, Normalisation


class Backbone(nn.Module):
    """A recommender that stands on a table of masked embeddings.

    The table is handed in, so that a mask, a soft threshold or any other embedding can take its place:
    `encode` turns float32[n, tables * width] (users first; width <= max_size) into one vector an entity, and
    scores come from these vectors alone. Parameters of the module never depend on the sizes.
    """

    tables: ClassVar[int] = 1
    """Tables an entity: 2 for NCF, whose table holds the GMF columns first, then those of the tower."""

    floats_per_score: int = 1
    """Floats of working memory a score in `score_all`, by which evaluation sizes its user blocks."""

    def __init__(self, n_users: int, n_items: int, max_size: int) -> None:
        super().__init__()
        self.n_users, self.n_items, self.max_size = n_users, n_items, max_size
        self.noise: torch.Generator | None = None

    @property
    def normalisation(self) -> Normalisation | None:
        """Which adjacency `encode` needs; None for a backbone without a graph."""
        return None

    def initial_table(self, generator: torch.Generator) -> Tensor:
        """Fresh float32[n, tables, max_size] on the CPU."""
        raise NotImplementedError

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the parameters beside the table; call before moving the module to a device."""

    def encode(self, table: Tensor, graph: Graph | None) -> Tensor:
        """Vectors float32[n, w] of all entities; dropout, if any, draws from `self.noise` in training mode."""
        raise NotImplementedError

    def margin(self, encoded: Tensor, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """y_uv - y_uv' of Eq. 4 for int64[B] users, positive and negative items: float32[B]."""
        raise NotImplementedError

    def score_all(self, encoded: Tensor, users: Tensor) -> Tensor:
        """y_uv of Eq. 3 for int64[b] users and every item: float32[b, n_items]."""
        raise NotImplementedError

    def regularised(self, table: Tensor, encoded: Tensor) -> Tensor:
        """Rows float[n, ...] whose squared norm Eq. 4 penalises when they are looked up."""
        return table
