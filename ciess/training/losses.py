"""What training minimises: Eq. 4 (BPR), softmax over items, or the squared error over all pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ciess.config.recommender import TrainingConfig
from ciess.models.backbone import Backbone, DotProductBackbone
from ciess.models.history import History
from ciess.training.gram import weighted_gram


@dataclass(frozen=True, eq=False)
class Batch:
    """Training pairs of a step.

    Attributes:
        users: int64[B].
        positives: an item of each user, int64[B].
        negatives: an item outside the user's training set, int64[B], of `bpr`; items that the step shares, int64[k], of
            `softmax` and, for a backbone that is no dot product, `squared`.
        every_item: whether `negatives` are all items, in order.
        whole: the history whose pairs, in its order, the batch is.
        of: the backbone of that history's users, where they are a block of all.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor
    every_item: bool = False
    whole: History | None = None
    of: Backbone | None = None


def loss_of(
    backbone: Backbone, table: Tensor, encoded: Tensor, batch: Batch, training: TrainingConfig, decay: float
) -> Tensor:
    """The loss of a step, and the penalty of Eq. 4 on the rows that it looks up.

    Args:
        backbone: scores.
        table: the masked table float32[n, ...].
        encoded: its vectors float32[n, w].
        batch: the pairs.
        training: which loss.
        decay: gamma of Eq. 4.

    Returns:
        a scalar.
    """
    # Split once, not sliced here and there: the gradient of every slice is a table of all rows.
    vectors = encoded.split([backbone.n_users, backbone.n_items])
    own = None
    if training.leave_one_out and backbone.leaves_one_out:
        own = backbone.own_share(vectors[1], batch.users, batch.positives)
    if training.loss == "bpr":
        return bpr_loss(backbone, table, encoded, batch.users, batch.positives, batch.negatives, decay, own)
    if batch.whole is not None and isinstance(backbone, DotProductBackbone):
        scores = batch.whole.pair_dots(*vectors)
    else:
        scores = backbone.pair_scores(encoded, batch.users, batch.positives)
    scores = scores if own is None else scores - own
    if training.loss == "softmax":
        loss = softmax_loss(backbone, encoded, batch, scores)
    else:
        loss = squared_loss(backbone, encoded, vectors, batch, scores, training.unobserved_weight)
    looked_up = torch.cat([batch.users, batch.positives + backbone.n_users])
    return loss + penalty(backbone, table, encoded, looked_up, len(batch.users), decay) if decay else loss


def bpr_loss(
    backbone: Backbone,
    table: Tensor,
    encoded: Tensor,
    users: Tensor,
    positives: Tensor,
    negatives: Tensor,
    decay: float,
    own: Tensor | None = None,
) -> Tensor:
    """Eq. 4 as a mean: softplus(y_uv' - y_uv) plus the penalty; own, float32[B], is taken out of y_uv."""
    margin = backbone.margin(encoded, users, positives, negatives)
    loss = functional.softplus(-(margin if own is None else margin - own)).mean()
    if decay:
        looked_up = torch.cat([users, positives + backbone.n_users, negatives + backbone.n_users])
        loss = loss + penalty(backbone, table, encoded, looked_up, len(users), decay)
    return loss


def penalty(backbone: Backbone, table: Tensor, encoded: Tensor, looked_up: Tensor, pairs: int, decay: float) -> Tensor:
    """Half of `decay` times the squared norm of the looked-up rows a pair (Eq. 4).

    A row that a batch looks up twice is penalised twice, so the penalty is one weighted sum over the table.
    """
    rows = backbone.regularised(table, encoded)
    counts = torch.bincount(looked_up, minlength=len(rows)).to(rows.dtype)
    return (0.5 * decay / pairs) * (rows.square().sum(1) * counts).sum()


def softmax_loss(backbone: Backbone, encoded: Tensor, batch: Batch, scores: Tensor) -> Tensor:
    """Mean of log(exp(y_uv) + sum over other items of exp(y_uv')) - y_uv, for scores y_uv float32[B] of the pairs."""
    others = backbone.cross_scores(encoded, batch.users, batch.negatives)
    same = batch.negatives == batch.positives[:, None]
    if batch.every_item:
        logits = others.scatter(1, batch.positives[:, None], scores[:, None])
    else:
        logits = torch.cat([scores[:, None], others.masked_fill(same, -torch.inf)], dim=1)
    return (torch.logsumexp(logits, 1) - scores).mean()


def squared_loss(
    backbone: Backbone,
    encoded: Tensor,
    vectors: Sequence[Tensor],
    batch: Batch,
    scores: Tensor,
    unobserved_weight: float,
) -> Tensor:
    """Mean over pairs of w_u (1 - y_uv)^2, and a0 over all users and items of w_u y^2, a pair; w_u = mean degree / du.

    By Gram matrices the second term costs as much as the table has rows, for dot products; other backbones take it over
    the batch's users and the shared items.
    """
    degrees = backbone.pair_counts
    mean = degrees.mean()
    weights = mean / degrees
    found = (weights[batch.users] * (1 - scores).square()).mean()
    if isinstance(backbone, DotProductBackbone):
        users, items = vectors
        every = (weighted_gram(users, weights) * (items.T @ items)).sum() / degrees.sum()
    else:
        others = backbone.cross_scores(encoded, batch.users, batch.negatives)
        # A pair of the batch stands for its user du times, so the user's share of all items comes once.
        every = (weights[batch.users] / degrees[batch.users] * others.square().mean(1)).mean() * backbone.n_items
    loss: Tensor = found + unobserved_weight * every
    return loss
