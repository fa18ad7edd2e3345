"""The state of an unfinished training, so that an interrupted one ends with the same bits as an undisturbed one."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ciess.storage.checkpoint import load_checkpoint, save_checkpoint
from ciess.storage.storage import Storage
from ciess.training.checkpoint_0_1 import delete_first_format, load_first_format
from ciess.training.history import EpochRecord


@dataclass
class TrainingState:
    """How far a full training is; epochs count from 1, best_epoch is 0 before the first evaluation."""

    epoch: int = 0
    best_epoch: int = 0
    best_quality: float = -1.0
    history: list[EpochRecord] = field(default_factory=list)


class TensorCheckpoint:
    """Tensors and a JSON state in a folder, as `storage.checkpoint` keeps arrays and values."""

    def __init__(self, folder: Storage, fingerprint: str) -> None:
        """Keep what `fingerprint` stands for, all that the state depends on, in `folder`."""
        self.folder, self.fingerprint = folder, fingerprint

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write both; the checkpoint before is kept.

        Args:
            step: how far the state is.
            tensors: by name, of any shape.
            state: what JSON can hold.
        """
        arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        save_checkpoint(self.folder, step, {"arrays": arrays, "values": state}, self.fingerprint)
        delete_first_format(self.folder)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was written last; what is wrong with a later one is said on stderr.

        Returns:
            tensors and state, None where there is nothing.

        Raises:
            RunDirectoryError: no checkpoint is whole, or one is of another training.
        """
        found, notes = load_checkpoint(self.folder, self.fingerprint, first=None)
        for note in notes:
            print(note, file=sys.stderr)
        if found is None:
            return load_first_format(self.folder, self.fingerprint)
        # Copies, as what safetensors gives is read-only.
        return {name: torch.from_numpy(value.copy()) for name, value in found["arrays"].items()}, found["values"]


def weights_of(**modules: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that modules save, the module's own name before theirs: `backbone.tower.0.weight`."""
    return {f"{part}.{name}": value for part, module in modules.items() for name, value in module.state_dict().items()}


def set_weights(weights: Mapping[str, Tensor], **modules: nn.Module) -> None:
    """Put back what `weights_of` gave."""
    with torch.no_grad():
        for name, value in weights_of(**modules).items():
            value.copy_(weights[name])


def slots_of(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, as `<name>.<parameter number>.<slot>`."""
    return {
        f"{name}.{index}.{slot}": value
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
        if isinstance(value, Tensor)
    }


def set_slots(tensors: Mapping[str, Tensor], name: str, optimizer: torch.optim.Optimizer) -> None:
    """Put back what `slots_of` gave."""
    state = optimizer.state_dict()
    for key, value in tensors.items():
        owner, *rest = key.split(".")
        if owner == name:
            state["state"].setdefault(int(rest[0]), {})[rest[1]] = value
    optimizer.load_state_dict(state)


class FitCheckpoint:
    """Keeps the best weights of a training, and writes its whole state where a folder is given."""

    def __init__(
        self,
        folder: Storage | None,
        fingerprint: str,
        embedding: nn.Module,
        backbone: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.files = None if folder is None else TensorCheckpoint(folder, fingerprint)
        self.modules, self.optimizer = {"embedding": embedding, "backbone": backbone}, optimizer
        self._best: dict[str, Tensor] = {}

    def keep_best(self) -> None:
        """Remember the weights as they are now."""
        self._best = {name: value.detach().clone() for name, value in weights_of(**self.modules).items()}

    def restore_best(self) -> None:
        """Put the remembered weights back in place."""
        if self._best:
            set_weights(self._best, **self.modules)

    def save(self, state: TrainingState) -> None:
        """Write weights, best weights, optimiser and progress."""
        if self.files is None:
            return
        tensors = {f"now.{name}": value for name, value in weights_of(**self.modules).items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        self.files.save(state.epoch, tensors | slots_of("optimizer", self.optimizer), asdict(state))

    def load(self) -> TrainingState:
        """Put the last written state in place; a fresh state where there is none.

        Raises:
            RunDirectoryError: the checkpoint of another training.
        """
        found = None if self.files is None else self.files.load()
        if found is None:
            return TrainingState()
        tensors, state = found
        set_weights({name[4:]: value for name, value in tensors.items() if name.startswith("now.")}, **self.modules)
        self._best = {name[5:]: value for name, value in tensors.items() if name.startswith("best.")}
        set_slots(tensors, "optimizer", self.optimizer)
        history = [EpochRecord(**record) for record in state.pop("history")]
        return TrainingState(**state, history=history)
