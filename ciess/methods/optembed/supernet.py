"""The supernet of OptEmbed: a table whose rows a learned threshold can drop and whose prefixes are drawn each step.

A field is a table of one side: users and items, or for NCF user-GMF, item-GMF, user-tower and item-tower, in this order
(field 2 k + side is table k of users (0) or items (1)). Each has a threshold and sizes of its own.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.errors import FitError
from ciess.masks.mask import Mask
from ciess.models.backbone import Backbone
from ciess.seeds import derive_seed
from ciess.training.loop import FitRequest, Training
from ciess.training.losses import Batch, loss_of
from ciess.training.prepared import Prepared

FIELDS = {1: ("user", "item"), 2: ("user_gmf", "item_gmf", "user_tower", "item_tower")}
"""Names of the fields by tables an entity."""


class LongTailedStep(torch.autograd.Function):
    """1 where x > 0, else 0; for its gradient stands 2 - 4 |x| up to 0.4, 0.4 up to 1 and 0 beyond (published code)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * long_tailed(ctx.saved_tensors[0])


def long_tailed(x: Tensor) -> Tensor:
    """The estimator of the step's derivative, elementwise: 2 at 0, 0.4 for 0.4 <= |x| <= 1, 0 beyond."""
    size = x.abs()
    return torch.where(size <= 0.4, 2 - 4 * size, torch.where(size <= 1, 0.4, 0.0))


class Supernet(nn.Module):
    """A table with row thresholds, of which `forward` gives any prefixes.

    A row of a table is kept where ||e||_1 / (max_size * mean |e| of its field at the start) exceeds its field's
    threshold: so measured, an average row starts at 1 whatever the backbone's initial scale (the published code takes
    ||e||_1 itself).

    Attributes:
        weight: float32[n, tables, max_size].
        thresholds: float32[fields], 0 at first, None without.
    """

    thresholds: nn.Parameter | None
    fields: Tensor
    scale: Tensor

    def __init__(self, initial: Tensor, mask: Mask, tables: int, n_users: int, thresholds: bool) -> None:
        """initial: float32[n, tables, max_size]. mask: of a fit, not used."""
        super().__init__()
        self.weight = nn.Parameter(initial.clone())
        side = (torch.arange(len(initial)) >= n_users).long()
        fields = 2 * torch.arange(tables) + side[:, None]
        self.register_buffer("fields", fields, persistent=False)
        count, size = 2 * tables, initial.shape[2]
        magnitude = torch.zeros(count).index_add_(0, fields.flatten(), initial.abs().mean(2).flatten())
        means = magnitude / torch.bincount(fields.flatten(), minlength=count)
        self.register_buffer("scale", size * means, persistent=False)
        self.thresholds = nn.Parameter(torch.zeros(count)) if thresholds else None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the fields."""
        return FIELDS[self.weight.shape[1]]

    def kept(self) -> Tensor:
        """1 for rows that are kept, 0 for those that are dropped: float32[n, tables]."""
        if self.thresholds is None:
            return torch.ones_like(self.fields, dtype=self.weight.dtype)
        norms = self.weight.abs().sum(2) / self.scale[self.fields]
        x = norms - self.thresholds[self.fields]
        return LongTailedStep.apply(x)  # type: ignore[no-any-return,no-untyped-call]

    def forward(self, sizes: Tensor | None = None, width: int | None = None) -> Tensor:
        """The table without dropped rows and under sizes.

        Args:
            sizes: int64[fields] or int64[n, tables]; None for all columns.
            width: the largest of them, max_size by default.

        Returns:
            float32[n, tables * width].
        """
        n, tables, size = self.weight.shape
        width = size if width is None else width
        table = self.weight[:, :, :width]
        rows = None if self.thresholds is None else self.kept()
        if sizes is not None:
            inside = (torch.arange(width, device=table.device) < sizes[..., None]).to(table.dtype)
            inside = inside if sizes.ndim == 2 else inside[self.fields]
            rows = inside if rows is None else inside * rows[:, :, None]
        elif rows is not None:
            rows = rows[:, :, None]
        if rows is not None:
            table = table * rows
        return table.reshape(n, tables * width)


def supernet_loss(
    backbone: Backbone, supernet: Supernet, table: Tensor, encoded: Tensor, batch: Batch, config: FitConfig
) -> Tensor:
    """The loss of a fit on the masked table, plus threshold_penalty times the sum of exp(-threshold) over fields."""
    loss = loss_of(backbone, table, encoded, batch, config.training, config.training.decay)
    if supernet.thresholds is not None:
        loss = loss + config.optembed.threshold_penalty * (-supernet.thresholds).exp().sum()
    return loss


class SupernetTraining(Training):
    """Stage 1: table and backbone by Adam as in any fit, thresholds by plain SGD, sizes drawn anew every step."""

    embedding: Supernet

    def __init__(self, data: Interactions, config: FitConfig, seed: int, prepared: Prepared) -> None:
        self.config = config
        module = partial(Supernet, n_users=data.n_users, thresholds=config.optembed.thresholds)
        full = masks.full(data.n, config.max_size)
        super().__init__(data, FitRequest(config.recommender(), full, seed, embedding=module), prepared)
        self.sizes = torch.Generator(prepared.device if config.optembed.per_entity else "cpu")

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Adam on all but the thresholds."""
        parameters = [self.embedding.weight, *self.backbone.parameters()]
        return torch.optim.Adam(parameters, lr=self.training.learning_rate, fused=True)

    def begin_epoch(self, epoch: int) -> None:
        """Also seeds the sizes of the epoch's steps."""
        super().begin_epoch(epoch)
        self.sizes.manual_seed(derive_seed(self.request.seed, "optembed", "sizes", epoch))

    def draw_sizes(self) -> tuple[Tensor, int]:
        """Uniform in 1..max_size, one a field or one an entity and table, and the columns that hold them all."""
        fields, largest = self.embedding.fields, self.config.max_size
        shape = fields.shape if self.config.optembed.per_entity else (len(self.embedding.names),)
        sizes = torch.randint(1, largest + 1, shape, generator=self.sizes, device=self.sizes.device)
        # Of thousands of sizes some are next to max_size: no look at them, which a GPU would have to wait for.
        width = largest if self.config.optembed.per_entity else int(sizes.max())
        return sizes.to(fields.device, non_blocking=True), width

    def step(self, batch: Batch) -> Tensor:
        """One step of both optimisers at sizes of its own; returns the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        thresholds = self.embedding.thresholds
        if thresholds is not None:
            thresholds.grad = None
        table = self.embedding(*self.draw_sizes())
        encoded = self.backbone.encode(table, self.graph)
        loss = supernet_loss(self.backbone, self.embedding, table, encoded, batch, self.config)
        loss.backward()
        self.optimizer.step()
        if thresholds is not None:
            assert thresholds.grad is not None
            with torch.no_grad():
                thresholds.sub_(self.config.optembed.threshold_learning_rate * thresholds.grad)
        return loss.detach()

    def kept_rows(self) -> dict[str, float]:
        """Share of the rows that are kept.

        Returns:
            shares by field.

        Raises:
            FitError: a field has no row left.
        """
        kept, fields = self.embedding.kept().detach(), self.embedding.fields
        count = len(self.embedding.names)
        sums = torch.zeros(count, device=kept.device).index_add_(0, fields.flatten(), kept.flatten())
        shares = (sums / torch.bincount(fields.flatten(), minlength=count)).tolist()
        for name, share in zip(self.embedding.names, shares, strict=True):
            if not share:
                raise FitError(
                    f"The threshold has dropped every row of the field {name}, but some must be left to search sizes "
                    "for. Lower optembed.threshold_penalty or optembed.threshold_learning_rate, or set "
                    "optembed.thresholds to false."
                )
        return dict(zip(self.embedding.names, shares, strict=True))
