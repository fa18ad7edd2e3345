"""PEP (Liu et al., ICLR 2021): thresholds learned with the table prune it, and what survives is trained anew."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.errors import FitError, InputError
from ciess.masks.mask import SparseMask
from ciess.methods.journal import Journal
from ciess.methods.pep.soft_threshold import ThresholdedEmbedding, largest
from ciess.seeds import derive_seed
from ciess.storage.columns import FORCED
from ciess.tables.spec import TableSpec
from ciess.training.checkpoint import set_slots, set_weights, slots_of, weights_of
from ciess.training.loop import FitRequest, Training, build
from ciess.training.prepared import Prepared, prepare

RAISES = 2
"""Times that gamma is raised before masks are forced (not given)."""

RAISE = 3.0
"""Factor on gamma each time (not given)."""


def pep(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
) -> list[TableSpec]:
    """A mask of single entries for each budget, all from one training of table, thresholds and model.

    At every check of what the thresholds keep, each budget that is met for the first time takes the mask as it stands
    (published code). The trainings that follow start from the initial weights of this one, which derive from the seed:
    the lottery ticket of the paper. A backbone with several tables an entity has one budget over all of them.

    The mask of a budget does not depend on the other budgets; an interrupted search that is asked for a further one
    starts anew, and makes the masks of the others once more. A budget that is not met within `max_steps`, nor after
    `RAISES` times as many with gamma raised, keeps the largest margins |v| - threshold and is flagged `forced` (not
    given: the published code trains on). `TableSpec.search`: `steps` trained, `overshoot` in entries below the budget,
    `decay` of the loss by then.

    Args:
        data: interactions to train on.
        config: settings of the recommender and of the method.
        budgets: sparsities asked for.
        seed: of the initial weights and of whatever is drawn.
        journal: checkpoint and history; without one nothing is kept.

    Returns:
        a table a budget.

    Raises:
        BudgetError: a sparsity leaves less than a column a row.
        InputError: the initial table already lies under its thresholds.
        FitError: training breaks down.
    """
    with cpu_threads(config.threads):
        prepared = prepare(data, resolve_device(config.device))
        search = _Search(data, config, budgets, seed, prepared, Journal() if journal is None else journal)
        search.run()
    return [search.met[c].spec(c, seed) for c in budgets]


def check_thresholds(config: FitConfig, data: Interactions) -> None:
    """Refuse thresholds that prune before any training.

    Args:
        config: settings of the fit, with seeds and sparsities.
        data: interactions to train on.

    Raises:
        InputError: the initial table of a seed already lies under its thresholds.
    """
    settings = config.pep
    for seed in dict.fromkeys(config.seeds):
        backbone, table = build(data, config.recommender(), seed)
        thresholds = settings.threshold_scale * torch.tensor(settings.initial_threshold).sigmoid()
        budgets = {
            c: masks.budget(data.n, config.max_size, c) * backbone.tables for c in map(masks.exact, config.sparsity)
        }
        _refuse_pruned(int((table.abs() > thresholds).sum()), table.numel(), budgets, config)


def _refuse_pruned(kept: int, whole: int, entries: Mapping[Fraction, int], config: FitConfig) -> None:
    met = [c for c, most in entries.items() if kept <= most]
    if met:
        raise InputError(
            f"Before any training the thresholds keep {kept:,} of {whole:,} entries, which already fits the sparsity "
            f"{float(max(met)):g}, but thresholds below most of the table were expected, so that training decides. "
            f"Lower pep.initial_threshold ({config.pep.initial_threshold:g})."
        )


class ThresholdTraining(Training):
    """The full table under thresholds, from the seed's initial weights, with an optimiser of its own."""

    embedding: ThresholdedEmbedding

    def __init__(
        self,
        data: Interactions,
        config: FitConfig,
        seed: int,
        prepared: Prepared,
        after_step: Callable[[int, nn.Module], None],
    ) -> None:
        self.settings = settings = config.pep
        # What else a training depends on has no place in a search that ends at a sparsity, not at a quality.
        constant = {"learning_rate": settings.learning_rate, "learning_rate_decay": 1.0, "learning_rate_floor": 0.0}
        training = config.training.model_copy(update=constant | {"decay": settings.decay})

        def embedding(table: Tensor, _: masks.Mask, __: int) -> ThresholdedEmbedding:
            scale, granularity = settings.threshold_scale, settings.granularity
            return ThresholdedEmbedding(table, settings.initial_threshold, scale, granularity)

        recommender = config.recommender().model_copy(update={"training": training})
        full = masks.full(data.n, config.max_size)
        request = FitRequest(recommender, full, seed, embedding=embedding, after_step=after_step)
        super().__init__(data, request, prepared)
        # The trainings that judge a mask do not repeat what made it.
        self.seed = derive_seed(seed, "pep")

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Adam, with a decay on the thresholds alone.

        Adam's own weight decay is coupled: a pull on s towards 0 that Adam makes steps of about the learning rate of,
        while the loss gives s next to no gradient at first. AdamW's would move s by learning rate x decay x s, which is
        nothing, and no threshold would rise.
        """
        groups: list[dict[str, Any]] = [
            {"params": [self.embedding.weight, *self.backbone.parameters()]},
            {"params": [self.embedding.logits], "weight_decay": self.settings.threshold_decay},
        ]
        return torch.optim.Adam(groups, lr=self.settings.learning_rate, fused=True)


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """The mask of a budget, taken after so many steps; overshoot: entries below the budget."""

    mask: SparseMask
    steps: int
    overshoot: int
    decay: float
    forced: bool

    def spec(self, c: Fraction, seed: int) -> TableSpec:
        facts = {"steps": self.steps, "overshoot": self.overshoot, "decay": self.decay}
        return TableSpec("pep", self.mask, seed, c, flag=FORCED if self.forced else None, search=facts)


class _Search:
    """The training of table, thresholds and model, and the budgets that it met so far."""

    def __init__(
        self,
        data: Interactions,
        config: FitConfig,
        budgets: Sequence[Fraction],
        seed: int,
        prepared: Prepared,
        journal: Journal,
    ) -> None:
        self.settings, self.max_size, self.journal = config.pep, config.max_size, journal
        self.training = ThresholdTraining(data, config, seed, prepared, self.after_step)
        self.embedding, self.tables = self.training.embedding, self.training.backbone.tables
        self.entries = {c: masks.budget(data.n, config.max_size, c) * self.tables for c in budgets}
        self.met: dict[Fraction, _Snapshot] = {}
        self.steps_an_epoch = prepared.sampler.steps(config.training.batch_size)
        _refuse_pruned(self.embedding.kept(), self.embedding.weight.numel(), self.entries, config)

    @property
    def missing(self) -> list[Fraction]:
        """Budgets without a mask."""
        return [c for c in self.entries if c not in self.met]

    def run(self) -> None:
        """Train until every budget has its mask, from where an interrupted sitting ended."""
        epoch = self._load()
        while self.missing:
            epoch += 1
            loss = self.training.epoch(epoch)
            self._note(epoch, loss)
            self._save(epoch)

    def after_step(self, step: int, _: nn.Module) -> None:
        """Look after a step, counted from 0, which budgets it met; raise gamma, and force masks, when it is time."""
        steps = step + 1
        last = steps == (1 + RAISES) * self.settings.max_steps
        if self.missing and (steps % self.settings.check_every == 0 or last):
            kept = self.embedding.kept()
            fitting = [c for c in self.missing if kept <= self.entries[c]]
            if fitting:
                self._take(fitting, (self.embedding.margins() > 0).cpu().numpy(), steps)
        if last:
            for c in self.missing:
                margins = self.embedding.margins().cpu().numpy()
                self._take([c], largest(margins, self.entries[c]), steps, forced=True)
        elif steps % self.settings.max_steps == 0:
            self._set_decay(steps)

    def _set_decay(self, steps: int) -> None:
        """Gamma after so many steps, a function of their number alone."""
        self.training.decay = self.settings.decay * RAISE ** min(RAISES, steps // self.settings.max_steps)

    def _take(self, budgets: Sequence[Fraction], kept: npt.NDArray[np.bool_], steps: int, forced: bool = False) -> None:
        """Make `kept`, bool[n, tables * max_size], the mask of budgets."""
        if not kept.any() or not bool(self.embedding.weight.isfinite().all()):
            raise FitError(
                f"The thresholds keep {int(kept.sum()):,} entries after step {steps:,}, and the table holds "
                f"{int((~self.embedding.weight.isfinite()).sum()):,} that are not finite numbers, but a mask of some "
                "entries of a finite table was expected. Lower the learning_rate or the decay of pep."
            )
        mask = SparseMask.from_dense(kept, self.max_size)
        for c in budgets:
            self.met[c] = _Snapshot(mask, steps, self.entries[c] - mask.kept, self.training.decay, forced)

    def _note(self, epoch: int, loss: float) -> None:
        forced = any(snapshot.forced for snapshot in self.met.values())
        self.journal.note(
            stage="pep",
            step=epoch * self.steps_an_epoch,
            loss=loss,
            sparsity=1 - self.embedding.kept() / self.embedding.weight.numel(),
            threshold=float(self.embedding.thresholds().mean()),
            decay=self.training.decay,
            budgets_met=sum(not snapshot.forced for snapshot in self.met.values()),
            flag=FORCED if forced else None,
        )

    def _modules(self) -> dict[str, nn.Module]:
        return {"embedding": self.embedding, "backbone": self.training.backbone}

    def _save(self, epoch: int) -> None:
        tensors = weights_of(**self._modules()) | slots_of("optimizer", self.training.optimizer)
        met: dict[str, dict[str, Any]] = {}
        for c, snapshot in self.met.items():
            facts = {field.name: getattr(snapshot, field.name) for field in dataclasses.fields(snapshot)}
            mask: SparseMask = facts.pop("mask")
            tensors |= {f"{c}.indptr": torch.from_numpy(mask.indptr), f"{c}.columns": torch.from_numpy(mask.columns)}
            met[str(c)] = facts
        state = {"epoch": epoch, "budgets": sorted(map(str, self.entries)), "met": met}
        self.journal.save(epoch, tensors, state)

    def _load(self) -> int:
        """Put the checkpoint in place; returns its epoch, 0 where there is none."""
        found = self.journal.load()
        if found is None:
            return 0
        tensors, state = found
        if not set(self.entries) <= set(map(Fraction, state["budgets"])):
            # It may be past a budget that nobody had asked for. The same training from its start meets all of them.
            self.journal.rows.clear()
            return 0
        set_weights(tensors, **self._modules())
        set_slots(tensors, "optimizer", self.training.optimizer)
        for c in self.entries:
            if str(c) in state["met"]:
                indptr, columns = (tensors[f"{c}.{part}"].numpy() for part in ("indptr", "columns"))
                self.met[c] = _Snapshot(SparseMask(indptr, columns, self.max_size, self.tables), **state["met"][str(c)])
        epoch: int = state["epoch"]
        self._set_decay(epoch * self.steps_an_epoch)
        return epoch
