"""The reference that starts begin from: a full table, trained on the training part or, for a refit, on both."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from ciess import masks
from ciess.config.recommender import RecommenderConfig
from ciess.config.starts import StartedConfig
from ciess.data import Interactions
from ciess.storage.storage import Storage
from ciess.tables.results import Chosen
from ciess.tables.spec import TableSpec
from ciess.tables.trials import Trial
from ciess.training.fit import FitResult


@dataclass(frozen=True, eq=False)
class References:
    """Full tables of a config and seed, each trained when first asked for and kept in a folder.

    Attributes:
        config: settings of the recommender and its starts; a reference itself starts fresh or spectral.
        seed: of the trainings.
        folder: where they are kept.
        known: what a search has trained on the training part already: weights, trial and epochs.
        keeps_progress: leave checkpoints where they are, for a full table of the same run.
    """

    config: RecommenderConfig
    seed: int
    folder: Storage
    known: tuple[Mapping[str, Tensor], Trial, int] | None = None
    keeps_progress: bool = False

    @property
    def progress(self) -> Storage:
        """Folder of the checkpoints."""
        return self.folder.child("progress")

    def __call__(self, data: Interactions) -> Mapping[str, Tensor]:
        """Weights of the reference of data, of which the validation part is empty for a refit.

        Args:
            data: what it is trained on.

        Returns:
            `table` as float32[n, tables, max_size] and the backbone's other parameters by name.
        """
        # Here, because a table's training may need a reference and a reference is a table's training.
        from ciess.tables.protocol import train_and_choose, train_on_all

        name = "train" if len(data.valid) else "refit"
        if name == "train" and self.known is not None:
            return self.known[0]
        if not self.folder.exists(f"{name}.safetensors"):
            config = self.config.of_reference() if isinstance(self.config, StartedConfig) else self.config
            bounds = masks.size_bounds(config, data.n_users, data.n_items)
            spec = TableSpec("reference", masks.full(data.n, config.max_size, bounds), self.seed)
            progress = self.progress
            if name == "train":
                chosen = train_and_choose(data, spec, config, progress)
                assert chosen.result is not None and chosen.trial is not None
                self.folder.write_json("chosen.json", {**chosen.trial.described(), "epoch": chosen.epoch})
                result = chosen.result
            else:
                result = train_on_all(data, spec, config, self._chosen(config, len(data.train)), progress)
            weights = weights_of_result(result, data.n, config.max_size)
            self.folder.write_bytes(f"{name}.safetensors", save(weights))
            if not self.keeps_progress:
                progress.delete()
        return load(self.folder.read_bytes(f"{name}.safetensors"))

    def _chosen(self, config: RecommenderConfig, pairs: int) -> Chosen:
        """What validation chose for the reference of the training part."""
        if self.known is not None:
            _, trial, epoch = self.known
        else:
            about = self.folder.read_json("chosen.json")
            trial, epoch = Trial.of(about, config, pairs), about["epoch"]
        return Chosen(np.empty(0, np.float32), {}, epoch, (), 0.0, None, trial)


def weights_of_result(result: FitResult, n: int, max_size: int) -> dict[str, Tensor]:
    """Weights of a full table's fit: `table` as float32[n, tables, max_size] and other parameters by name."""
    weights = {name: torch.from_numpy(values).contiguous() for name, values in result.weights.items()}
    table = torch.from_numpy(result.table).reshape(n, result.recommender.backbone.tables, -1)
    weights["table"] = torch.nn.functional.pad(table, (0, max_size - table.shape[2])).contiguous()
    return weights
