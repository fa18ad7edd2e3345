"""Train a recommender under a mask: a pure function of data and request (line 10 of Algorithm 1, and section 2.3)."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.errors import FitError, InputError
from ciess.evaluation.metrics import UserMetrics
from ciess.masks.mask import Mask, PrefixMask, row_sizes, rows_from, stored_side
from ciess.masks.ragged import kept_entries
from ciess.models import BACKBONES, Backbone
from ciess.models.chained_embedding import ChainedEmbedding
from ciess.models.embedding import MaskedEmbedding
from ciess.models.graph import Graph
from ciess.seeds import derive_seed
from ciess.storage.storage import Storage
from ciess.training.history import EpochRecord
from ciess.training.losses import Batch, loss_of
from ciess.training.prepared import HALVES, Prepared


@dataclass(frozen=True, eq=False)
class FitRequest:
    """What to train.

    Attributes:
        config: backbone, training, device and threads.
        mask: which entries exist, over n rows, users first.
        seed: of the initial weights, the samples and dropout.
        epochs: train for as many; None trains until validation stops to improve (`training.patience`).
        evaluate: rank on validation after the last of these epochs (a full training always does).
        initial: weights to start from instead of fresh ones: `table` as float32[n, tables, max_size], of a backbone
            without rows of users float32[n_items, ...] will do; others by the backbone's parameter names.
        embedding: builds the module that stands for the masked table from (initial table, mask, tables).
        after_step: called with (step, module) after every optimiser step.
        decoder: weights by which rows of a PrefixMask are mapped to one size (`ChainedEmbedding`), none for a plain
            table.
        progress: folder for the checkpoint of a training, from which an interrupted one goes on.
        on_epoch: called after every epoch.
        halves: rank on both halves of validation, too.
        choose_by_half: validation improves where its second half does.
        until: pause after this epoch of a full training, one that is evaluated; an equal request without it, or with a
            later one, goes on from `progress`.
    """

    config: RecommenderConfig
    mask: Mask
    seed: int
    epochs: int | None = None
    evaluate: bool = True
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    embedding: Callable[[Tensor, Mask, int], nn.Module] = MaskedEmbedding
    after_step: Callable[[int, nn.Module], None] | None = None
    decoder: Mapping[str, Tensor] = field(default_factory=dict)
    progress: Storage | None = None
    on_epoch: Callable[[EpochRecord], None] | None = None
    halves: bool = False
    choose_by_half: bool = False
    until: int | None = None

    def fingerprint(self, data: Interactions) -> str:
        """sha256 of everything the result depends on but code: a checkpoint of another request is refused by it.

        Args:
            data: what is trained on.

        Returns:
            64 hexadecimal digits.
        """
        digest = hashlib.sha256()
        digest.update(f"{data.sha256} {data.split_seed} {len(data.train)} {self.seed} {self.epochs}".encode())
        digest.update(getattr(self.embedding, "__qualname__", type(self.embedding).__qualname__).encode())
        digest.update(self.config.identity().encode())
        parts = [self.mask.sizes] if isinstance(self.mask, PrefixMask) else [self.mask.indptr, self.mask.columns]
        for tensors in (self.initial, self.decoder):
            parts += [tensors[name].detach().cpu().numpy() for name in sorted(tensors)]
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        if self.choose_by_half:
            digest.update(b"chosen by half")
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Recommender:
    """A trained model that scores: the backbone and the vectors it encoded on its graph."""

    backbone: Backbone
    encoded: Tensor

    def score_users(self, users: Tensor) -> Tensor:
        """float32[b, n_items] for int64[b] users."""
        with torch.no_grad():
            return self.backbone.score_all(self.encoded, users)


def build(
    data: Interactions, config: RecommenderConfig, seed: int, initial: Mapping[str, Tensor] | None = None
) -> tuple[Backbone, Tensor]:
    """A fresh backbone on the CPU and its full initial table float32[n, tables, max_size], from the seed alone."""
    initial = initial or {}
    backbone = BACKBONES[config.backbone](config.model, data.n_users, data.n_items, config.max_size)
    backbone.adapt(data.degrees())
    backbone.reset_parameters(torch.Generator().manual_seed(derive_seed(seed, "parameters")))
    unknown = set(initial) - {"table"} - {name for name, _ in backbone.named_parameters()}
    if unknown:
        raise InputError(
            f"Found initial weights for {', '.join(sorted(unknown))}, but {config.backbone} has none of these names. "
            "Give `table` or names of the backbone's own parameters."
        )
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if name in initial:
                parameter.copy_(initial[name])
    if "table" in initial:
        return backbone, initial["table"]
    return backbone, backbone.initial_table(torch.Generator().manual_seed(derive_seed(seed, "table")))


class Training:
    """One training in progress."""

    def __init__(self, data: Interactions, request: FitRequest, prepared: Prepared) -> None:
        config = request.config
        self.request, self.prepared, self.training = request, prepared, config.training
        self.backbone, table = build(data, config, request.seed, request.initial)
        self.backbone.to(prepared.device)
        self.backbone.noise = torch.Generator(prepared.device)
        if not request.decoder:
            self.backbone.stored_side = stored_side(request.mask, data.n_users)
        self.first_row = self._first_row()
        self.embedding = self._embedding(data, table).to(prepared.device)
        self.graph: Graph | None = prepared.graph(self.backbone.normalisation)
        # Of samples and dropout; the initial weights have the request's.
        self.seed, self.decay = request.seed, config.training.decay
        self.scale = self._deviation(table) if self.training.relative_rate else 1.0
        self.optimizer = self.build_optimizer()
        self.evaluation_seconds = 0.0

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Adam on the table and the backbone.

        Returns:
            an optimiser whose groups take the learning rate of an epoch.

        Raises:
            FitError: the mask leaves nothing to train.
        """
        parameters = [*self.embedding.parameters(), *self.backbone.parameters()]
        # A mask that keeps nothing leaves an empty table, which fused Adam does not take.
        parameters = [parameter for parameter in parameters if parameter.numel() and parameter.requires_grad]
        if not parameters:
            raise FitError(
                f"The mask keeps no entry of the table, and {self.request.config.backbone} has no other parameter to "
                "train. Give a mask that keeps some."
            )
        return torch.optim.Adam(parameters, lr=self.training.learning_rate, fused=True)

    def _first_row(self) -> int:
        """Rows of the mask above those that are stored: users', where neither backbone nor mask have any."""
        n_users = self.backbone.n_users
        without = not self.backbone.users_have_rows and stored_side(self.request.mask, n_users) == "items"
        return n_users if without else 0

    def _embedding(self, data: Interactions, table: Tensor) -> nn.Module:
        request, tables = self.request, self.backbone.tables
        if request.decoder:
            return ChainedEmbedding(table, request.mask, tables, request.decoder, data.n_users)
        if not self.first_row:
            return request.embedding(table, request.mask, tables)
        return request.embedding(self._stored(table), rows_from(request.mask, self.first_row), tables)

    def _stored(self, table: Tensor) -> Tensor:
        """The rows that are stored of a table float32[n, ...], which may lack the others."""
        return table[len(table) - (len(row_sizes(self.request.mask)) - self.first_row) :]

    def _deviation(self, table: Tensor) -> float:
        """Root of the mean square of the kept entries of a table float32[n, tables, max_size]; 1 where all are 0."""
        table, mask = self._stored(table), rows_from(self.request.mask, self.first_row)
        kept = torch.from_numpy(kept_entries(mask, self.backbone.tables, table.shape[2]))
        squares = table.reshape(kept.shape)[kept].double().square()
        return float(squares.mean().sqrt()) if len(squares) and bool(squares.any()) else 1.0

    def learning_rate(self, epoch: int) -> float:
        """Of an epoch, counted from 1."""
        training = self.training
        rate = training.learning_rate * training.learning_rate_decay ** (epoch - 1)
        return max(training.learning_rate_floor, rate) * self.scale

    def begin_epoch(self, epoch: int) -> None:
        """Training mode, dropout and learning rate of an epoch, counted from 1."""
        self.backbone.train()
        assert self.backbone.noise is not None
        self.backbone.noise.manual_seed(derive_seed(self.seed, "dropout", epoch))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(epoch)

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step; returns the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        table = self.embedding()
        backbone, graph = (self.backbone, self.graph) if batch.of is None else (batch.of, batch.whole)
        encoded = backbone.encode(table, graph)
        loss = loss_of(backbone, table, encoded, batch, self.training, self.decay)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The training pairs of an epoch, counted from 1, a batch a step."""
        training, sampler = self.training, self.prepared.sampler
        if self._in_blocks:
            yield from self._blocks(epoch)
            return
        if training.loss == "squared" and training.batch_size >= sampler.n_pairs:
            history = self.prepared.history
            shared = sampler.shared(self.seed, epoch, 1, training.negatives)
            items = sampler.every_item if shared is None else shared[0]
            users, positives = history.pairs
            yield Batch(users, positives, items, shared is None, history)
            return
        triples = sampler.epoch(self.seed, epoch, training.batch_size, training.sampling)
        if training.loss == "bpr":
            for parts in zip(triples.users, triples.positives, triples.negatives, strict=True):
                users, positives, negatives = parts
                yield Batch(users, positives, negatives)
            return
        shared = sampler.shared(self.seed, epoch, len(triples.users), training.negatives)
        for number, (users, positives) in enumerate(zip(triples.users, triples.positives, strict=True)):
            yield Batch(users, positives, sampler.every_item if shared is None else shared[number], shared is None)

    @property
    def _in_blocks(self) -> bool:
        """Whether users come in blocks: those of the squared loss, where they have no rows and too many pairs."""
        whole = self.training.loss == "squared" and self.training.batch_size >= self.prepared.sampler.n_pairs
        return whole and self.first_row > 0 and self.prepared.block_count > 1

    def _blocks(self, epoch: int) -> Iterator[Batch]:
        """The blocks of users in an order of their own each epoch."""
        blocks = self.prepared.blocks
        seed = derive_seed(self.seed, "order of blocks", epoch)
        for place in np.random.Generator(np.random.PCG64(seed)).permutation(len(blocks)):
            block = blocks[place]
            users, positives = block.history.pairs
            backbone = self.backbone.with_users(block.users)
            yield Batch(users, positives, self.prepared.sampler.every_item, True, block.history, backbone)

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        in_blocks = self._in_blocks
        return self.prepared.block_count if in_blocks else self.prepared.sampler.steps(self.training.batch_size)

    def epoch(self, epoch: int) -> float:
        """Train one epoch, counted from 1; returns its mean loss."""
        request, steps = self.request, self.steps
        self.begin_epoch(epoch)
        total = torch.zeros((), device=self.prepared.device)
        for number, batch in enumerate(self.batches(epoch)):
            total += self.step(batch)
            if request.after_step is not None:
                request.after_step((epoch - 1) * steps + number, self.embedding)
        loss = float(total) / steps
        if not math.isfinite(loss):
            raise FitError(
                f"The loss is {loss} in epoch {epoch} at learning rate {self.learning_rate(epoch):g} with seed "
                f"{self.seed}; a finite number was expected. Lower the learning rate or raise the decay."
            )
        return loss

    def recommender(self) -> Recommender:
        """The model as it is now, in evaluation mode."""
        self.backbone.eval()
        with torch.no_grad():
            return Recommender(self.backbone, self.backbone.encode(self.embedding(), self.graph))

    def validate(self) -> UserMetrics:
        """Metrics on validation, training items hidden."""
        start = time.perf_counter()
        score_users, count = self.recommender().score_users, self.request.config.evaluate_users
        parts = HALVES if self.request.halves or self.request.choose_by_half else ()
        metrics = self.prepared.evaluate(score_users, ["train"], "valid", self.backbone, count, parts)
        self.evaluation_seconds += time.perf_counter() - start
        return metrics
