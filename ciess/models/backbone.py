"""What every backbone offers to training, evaluation and serving (F of Eq. 3)."""

import copy
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ciess.masks.mask import RowSide
from ciess.models.graph import Graph, Normalisation


class Backbone(nn.Module):
    """A recommender that stands on a table of masked embeddings.

    The table is handed in, so that a mask, a soft threshold or any other embedding can take its place:
    `encode` turns float32[n, tables * width] (users first; width <= max_size) into one vector an entity, and
    scores come from these vectors alone. Parameters of the module never depend on the sizes.

    Attributes:
        stored_side: the side that alone has rows in the tables that `encode` gets, None where both may have some.
    """

    tables: ClassVar[int] = 1
    """Tables an entity: 2 for NCF, whose table holds the GMF columns first, then those of the tower."""

    leaves_one_out: ClassVar[bool] = False
    """Whether `own_share` is known."""

    linear: ClassVar[bool] = False
    """Whether vectors are linear in the table."""

    users_have_rows: ClassVar[bool] = True
    """Whether the table that `encode` takes has rows of users; without them it is float32[n_items, w]."""

    by_user: ClassVar[tuple[str, ...]] = ("pair_counts",)
    """Buffers with an entry a user."""

    pair_counts: Tensor
    """Training pairs of each user, at least 1: float32[n_users]."""

    floats_per_score: int = 1
    """Floats of working memory a score in `score_all`, by which evaluation sizes its user blocks."""

    def __init__(self, n_users: int, n_items: int, max_size: int) -> None:
        super().__init__()
        self.n_users, self.n_items, self.max_size = n_users, n_items, max_size
        self.noise: torch.Generator | None = None
        self.stored_side: RowSide | None = None
        self.register_buffer("pair_counts", torch.ones(n_users), persistent=False)

    @property
    def normalisation(self) -> Normalisation | None:
        """Which adjacency `encode` needs; None for a backbone without a graph."""
        return None

    def initial_table(self, generator: torch.Generator) -> Tensor:
        """Fresh float32[n, tables, max_size] on the CPU."""
        raise NotImplementedError

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the parameters beside the table; call before moving the module to a device."""

    def adapt(self, degrees: npt.NDArray[np.int64]) -> None:
        """Take what follows from the training pairs of each row, int64[n], on the CPU."""
        self.pair_counts.copy_(torch.from_numpy(np.maximum(degrees[: self.n_users], 1)))

    def encode(self, table: Tensor, graph: Graph | None) -> Tensor:
        """Vectors float32[n, w] of all entities; dropout, if any, draws from `self.noise` in training mode."""
        raise NotImplementedError

    def margin(self, encoded: Tensor, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """y_uv - y_uv' of Eq. 4 for int64[B] users, positive and negative items: float32[B]."""
        raise NotImplementedError

    def pair_scores(self, encoded: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """y_uv of Eq. 3 for int64[B] users and items: float32[B]."""
        raise NotImplementedError

    def cross_scores(self, encoded: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """y_uv of Eq. 3 for int64[b] users and each of int64[k] items: float32[b, k]."""
        raise NotImplementedError

    def score_all(self, encoded: Tensor, users: Tensor) -> Tensor:
        """y_uv of Eq. 3 for int64[b] users and every item: float32[b, n_items]."""
        raise NotImplementedError

    def with_users(self, users: Tensor) -> "Backbone":
        """The same backbone, its parameters shared, for int64[m] of the users alone: those that stand in a history of
        these. Only of a backbone whose users have no rows.
        """
        part = copy.copy(self)
        part._buffers = self._buffers | {name: getattr(self, name)[users] for name in self.by_user}
        part.n_users = len(users)
        return part

    def own_share(self, vectors: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """What a pair's own standing in its user's history adds to its score: float32[B] (FISM, Kabbur et al. 2013).

        From the vectors of all items, float32[n_items, w]. Only where `leaves_one_out`.
        """
        raise NotImplementedError

    def from_history(self, table: Tensor, graph: Graph | None, items: Tensor) -> Tensor | None:
        """Vector float32[w] of a user without a row who has int64[k] items; None where the backbone has no such."""
        return None

    def regularised(self, table: Tensor, encoded: Tensor) -> Tensor:
        """Rows float[n, ...] whose squared norm Eq. 4 penalises when they are looked up."""
        return table


class DotProductBackbone(Backbone):
    """Scores by dot product of the encoded vectors."""

    def margin(self, encoded: Tensor, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        # One look-up for all three: its gradient is then one scatter instead of three.
        rows = torch.cat([users, positives + self.n_users, negatives + self.n_users])
        user, positive, negative = encoded.index_select(0, rows).chunk(3)
        return (user * (positive - negative)).sum(1)

    def pair_scores(self, encoded: Tensor, users: Tensor, items: Tensor) -> Tensor:
        user, item = encoded.index_select(0, torch.cat([users, items + self.n_users])).chunk(2)
        return (user * item).sum(1)

    def cross_scores(self, encoded: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return encoded.index_select(0, users) @ encoded.index_select(0, items + self.n_users).T

    def score_all(self, encoded: Tensor, users: Tensor) -> Tensor:
        return encoded.index_select(0, users) @ encoded[self.n_users :].T
