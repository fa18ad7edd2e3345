"""The state of an unfinished training, so that an interrupted one ends with the same bits as an undisturbed one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ciess.errors import RunDirectoryError
from ciess.storage.storage import Storage
from ciess.training.history import EpochRecord

TENSORS = "training.safetensors"
STATE = "training.json"


@dataclass
class TrainingState:
    """How far a full training is; epochs count from 1, best_epoch is 0 before the first evaluation."""

    epoch: int = 0
    best_epoch: int = 0
    best_quality: float = -1.0
    history: list[EpochRecord] = field(default_factory=list)


class TensorCheckpoint:
    """Tensors and a JSON state in a folder, of which a reader finds the last whole pair.

    The tensors carry the step they belong to in their file name, and the small JSON file that names them is written
    last: whenever the process dies, the JSON file points to whole tensors.
    """

    def __init__(self, folder: Storage, fingerprint: str) -> None:
        """fingerprint: of all that the state depends on."""
        self.folder, self.fingerprint = folder, fingerprint

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write both; those of an earlier step go."""
        name = f"{step:06d}-{TENSORS}"
        content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        self.folder.write_bytes(name, content)
        self.folder.write_json(STATE, {"fingerprint": self.fingerprint, "tensors": name, "state": state})
        for other in self.folder.names():
            if other.endswith(TENSORS) and other != name:
                self.folder.delete(other)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was written last; None where there is nothing.

        Raises RunDirectoryError for the checkpoint of another training.
        """
        if not self.folder.exists(STATE):
            return None
        found = self.folder.read_json(STATE)
        if found["fingerprint"] != self.fingerprint:
            raise RunDirectoryError(
                f"{self.folder.root} holds the checkpoint of another training (fingerprint "
                f"{found['fingerprint'][:12]}, expected {self.fingerprint[:12]}): data, config, mask or seed "
                "differ. Choose another --out, or start anew with --overwrite."
            )
        return load(self.folder.read_bytes(found["tensors"])), found["state"]


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

        Raises RunDirectoryError for the checkpoint of another training.
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
