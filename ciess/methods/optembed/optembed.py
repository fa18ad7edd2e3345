"""OptEmbed (Lyu et al., CIKM 2022): which rows, and how many columns a field.

Stage 1 trains a supernet (supernet.py) until validation drops. Stage 2 searches, on the frozen supernet, for the sizes
with the best validation mean of Eq. 8 (evolution.py). Stage 3, the training from the initial weights under the mask so
found, is the training that every method's mask gets. The sparsity is an outcome: nothing aims at a budget.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.masks.budget import sparsity
from ciess.masks.mask import Mask, PrefixMask, SparseMask
from ciess.methods.journal import Journal
from ciess.methods.optembed.evolution import Generation, Genome, evolve
from ciess.methods.optembed.supernet import SupernetTraining
from ciess.tables.spec import TableSpec
from ciess.training.checkpoint import set_slots, set_weights, slots_of, weights_of
from ciess.training.prepared import prepare


def optembed(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
) -> list[TableSpec]:
    """One table whatever the budgets: sizes by field, or by entity with `per_entity`, and 0 for dropped rows.

    Its mask is a PrefixMask, or a SparseMask where the two tables of NCF differ.

    Args:
        data: interactions to train on.
        config: settings of the recommender and of the method.
        budgets: sparsities asked for.
        seed: of the initial weights and of whatever is drawn.
        journal: checkpoint and history; without one nothing is kept.

    Returns:
        the one table.

    Raises:
        DataError: the data have no validation part.
        FitError: a loss that is not finite, or thresholds that drop a whole field.
    """
    data.require("valid")
    with cpu_threads(config.threads):
        return [Stages(data, config, seed, Journal() if journal is None else journal).spec()]


class Stages:
    """The supernet and what is known of it, both stages' checkpoints, and the mask in the end."""

    def __init__(self, data: Interactions, config: FitConfig, seed: int, journal: Journal) -> None:
        self.data, self.config, self.seed, self.journal = data, config, seed, journal
        self.prepared = prepare(data, resolve_device(config.device))
        self.training = SupernetTraining(data, config, seed, self.prepared)
        self.supernet = self.training.embedding
        self.modules = {"supernet": self.supernet, "backbone": self.training.backbone}
        self.epoch, self.best_epoch, self.best_quality = 0, 0, -1.0
        self.best: dict[str, Tensor] = {}
        self.rows = np.ones(tuple(self.supernet.fields.shape), np.bool_)
        self.generation: Generation | None = None

    def spec(self) -> TableSpec:
        """Run what is left of both stages."""
        self._load()
        self.train()
        self.freeze()
        found = self.evolve()
        mask = mask_of(self._sizes(found.best), self.config.max_size)
        return TableSpec("optembed", mask, self.seed, search=self._facts(found))

    def train(self) -> None:
        """Until validation has not improved for `patience` epochs; its best weights are then remembered."""
        settings = self.config.optembed
        while self.epoch < settings.max_epochs and (
            not self.best_epoch or self.epoch - self.best_epoch < settings.patience
        ):
            self.epoch += 1
            loss = self.training.epoch(self.epoch)
            shares = self.training.kept_rows()
            quality = self.training.validate().mean_quality()
            if quality > self.best_quality:
                self.best_quality, self.best_epoch = quality, self.epoch
                self.best = {name: value.detach().clone() for name, value in weights_of(**self.modules).items()}
            kept = {f"kept_{name}": share for name, share in shares.items()}
            self.journal.note(
                stage="supernet", step=self.epoch, loss=loss, quality=quality, **kept, **self._thresholds()
            )
            now = {f"now.{name}": value for name, value in weights_of(**self.modules).items()}
            best = {f"best.{name}": value for name, value in self.best.items()}
            self.journal.save(self.epoch, now | best | slots_of("adam", self.training.optimizer), self._state())

    def freeze(self) -> None:
        """Put the best epoch's weights in place; which rows they keep is settled."""
        set_weights(self.best, **self.modules)
        self.training.backbone.eval()
        with torch.no_grad():
            self.rows = self.supernet.kept().cpu().numpy() > 0

    def evolve(self) -> Generation:
        """Search for sizes on the frozen supernet; validation means of Eq. 8 are the fitness."""
        genes = self.rows.size if self.config.optembed.per_entity else len(self.supernet.names)

        def keep(generation: Generation) -> None:
            self.generation = generation
            sizes = self._sizes(generation.best)
            self.journal.note(
                stage="evolution",
                step=generation.number,
                quality=float(generation.fitness[0]),
                mean_quality=float(generation.fitness.mean()),
                evaluations=len(generation.cache),
                sparsity=float(sparsity(mask_of(sizes, self.config.max_size))),
                **{f"size_{name}": size for name, size in self._mean_sizes(generation.best).items()},
            )
            tensors = {f"best.{name}": value for name, value in self.best.items()}
            tensors["parents"] = torch.from_numpy(generation.parents)
            self.journal.save(self.epoch + generation.number, tensors, self._state())

        return evolve(self.fitness, genes, self.config.max_size, self.config.optembed, self.seed, self.generation, keep)

    def fitness(self, candidate: Genome) -> float:
        """Validation mean of Eq. 8 of the frozen supernet at these sizes."""
        supernet, backbone = self.supernet, self.training.backbone
        sizes = torch.from_numpy(candidate.astype(np.int64)).to(self.prepared.device)
        if self.config.optembed.per_entity:
            sizes = sizes.reshape(supernet.fields.shape)
        with torch.no_grad():
            encoded = backbone.encode(supernet(sizes, int(candidate.max())), self.training.graph)
            metrics = self.prepared.evaluate(
                lambda users: backbone.score_all(encoded, users),
                ["train"],
                "valid",
                backbone,
                self.config.evaluate_users,
            )
        return metrics.mean_quality()

    def _sizes(self, candidate: Genome) -> npt.NDArray[np.int16]:
        """Of every row, 0 for dropped ones: int16[n, tables]."""
        fields = self.supernet.fields.cpu().numpy()
        sizes = candidate.reshape(fields.shape) if self.config.optembed.per_entity else candidate[fields]
        return np.where(self.rows, sizes, 0).astype(np.int16)

    def _mean_sizes(self, candidate: Genome) -> dict[str, float]:
        """Of a candidate, by field, of dropped rows too."""
        if not self.config.optembed.per_entity:
            return dict(zip(self.supernet.names, map(float, candidate), strict=True))
        fields = self.supernet.fields.cpu().numpy().ravel()
        means = np.bincount(fields, weights=candidate) / np.bincount(fields)
        return dict(zip(self.supernet.names, means.tolist(), strict=True))

    def _thresholds(self) -> dict[str, float]:
        thresholds = self.supernet.thresholds
        if thresholds is None:
            return {}
        return {
            f"threshold_{name}": value for name, value in zip(self.supernet.names, thresholds.tolist(), strict=True)
        }

    def _facts(self, found: Generation) -> Mapping[str, Any]:
        """For the card."""
        fields = self.supernet.fields.cpu().numpy()
        dropped = np.bincount(fields[~self.rows], minlength=len(self.supernet.names)).tolist()
        return {
            "supernet_epochs": self.epoch,
            "supernet_best_epoch": self.best_epoch,
            "supernet_quality": self.best_quality,
            "fitness": float(found.fitness[0]),
            "evaluations": len(found.cache),
            **{f"size_{name}": size for name, size in self._mean_sizes(found.best).items()},
            **{f"dropped_{name}": count for name, count in zip(self.supernet.names, dropped, strict=True)},
            **self._thresholds(),
        }

    def _state(self) -> dict[str, Any]:
        evolution = None
        if self.generation is not None:
            evolution = {
                "number": self.generation.number,
                "fitness": self.generation.fitness.tolist(),
                "cache": self.generation.cache,
            }
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_quality": self.best_quality,
            "evolution": evolution,
        }

    def _load(self) -> None:
        """Go on from the checkpoint where there is one."""
        found = self.journal.load()
        if found is None:
            return
        tensors, state = found
        self.epoch, self.best_epoch, self.best_quality = state["epoch"], state["best_epoch"], state["best_quality"]
        self.best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
        now = {name.removeprefix("now."): value for name, value in tensors.items() if name.startswith("now.")}
        if now:
            set_weights(now, **self.modules)
            set_slots(tensors, "adam", self.training.optimizer)
        if (evolution := state["evolution"]) is not None:
            self.generation = Generation(
                evolution["number"], tensors["parents"].numpy(), np.array(evolution["fitness"]), evolution["cache"]
            )


def mask_of(sizes: npt.NDArray[np.int16], max_size: int) -> Mask:
    """The mask of int16[n, tables] sizes: of prefixes where the tables agree or there is one, else of entries."""
    if (sizes == sizes[:, :1]).all():
        return PrefixMask(sizes[:, 0], max_size)
    dense = np.arange(max_size) < sizes[:, :, None]
    return SparseMask.from_dense(dense.reshape(len(sizes), -1), max_size)
