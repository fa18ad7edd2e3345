"""The state of an unfinished training, so that an interrupted one ends with the same bits as an undisturbed one."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ciess.errors import RunDirectoryError
from ciess.storage import Storage

TENSORS = "training.safetensors"
STATE = "training.json"


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean loss of Eq. 4, and the validation mean of Eq. 8 where it was evaluated."""

    epoch: int
    loss: float
    quality: float | None


def history_table(history: Sequence[EpochRecord]) -> pa.Table:
    """Rows of history.parquet of a training."""
    return pa.table(
        {
            "epoch": pa.array([record.epoch for record in history], pa.int64()),
            "loss": pa.array([record.loss for record in history], pa.float64()),
            "quality": pa.array([record.quality for record in history], pa.float64()),
        }
    )


@dataclass
class TrainingState:
    """How far a full training is; epochs count from 1, best_epoch is 0 before the first evaluation."""

    epoch: int = 0
    best_epoch: int = 0
    best_quality: float = -1.0
    history: list[EpochRecord] = field(default_factory=list)


class FitCheckpoint:
    """Keeps the best weights of a training, and writes its whole state where a folder is given.

    The tensors carry the epoch they belong to in their file name, and the small JSON file that names them is written
    last: whenever the process dies, the JSON file points to whole tensors.
    """

    def __init__(
        self,
        folder: Storage | None,
        fingerprint: str,
        embedding: nn.Module,
        backbone: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.embedding, self.backbone, self.optimizer = embedding, backbone, optimizer
        self._best: dict[str, Tensor] = {}

    def _weights(self) -> dict[str, Tensor]:
        parts = {"embedding": self.embedding, "backbone": self.backbone}
        return {
            f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()
        }

    def _set_weights(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._weights().items():
                value.copy_(weights[name])

    def keep_best(self) -> None:
        """Remember the weights as they are now."""
        self._best = {name: value.detach().clone() for name, value in self._weights().items()}

    def restore_best(self) -> None:
        """Put the remembered weights back in place."""
        if self._best:
            self._set_weights(self._best)

    def save(self, state: TrainingState) -> None:
        """Write weights, best weights, optimiser and progress."""
        if self.folder is None:
            return
        tensors = {f"now.{name}": value for name, value in self._weights().items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
        name = f"{state.epoch:06d}-{TENSORS}"
        content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        self.folder.write_bytes(name, content)
        self.folder.write_json(STATE, {"fingerprint": self.fingerprint, "tensors": name, "state": asdict(state)})
        for other in self.folder.names():
            if other.endswith(TENSORS) and other != name:
                self.folder.delete(other)

    def load(self) -> TrainingState:
        """Put the last written state in place; a fresh state where there is none.

        Raises RunDirectoryError for the checkpoint of another training.
        """
        if self.folder is None or not self.folder.exists(STATE):
            return TrainingState()
        found = self.folder.read_json(STATE)
        if found["fingerprint"] != self.fingerprint:
            raise RunDirectoryError(
                f"{self.folder.root} holds the checkpoint of another training (fingerprint "
                f"{found['fingerprint'][:12]}, expected {self.fingerprint[:12]}): data, config, mask or seed "
                "differ. Choose another --out, or start anew with --overwrite."
            )
        tensors = load(self.folder.read_bytes(found["tensors"]))
        self._set_weights({name[4:]: value for name, value in tensors.items() if name.startswith("now.")})
        self._best = {name[5:]: value for name, value in tensors.items() if name.startswith("best.")}
        optimizer = self.optimizer.state_dict()
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, slot = name.split(".")
                optimizer["state"].setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict(optimizer)
        history = [EpochRecord(**record) for record in found["state"].pop("history")]
        return TrainingState(**found["state"], history=history)
