"""Checkpoints of trainings as ciess 0.1.0 wrote them, so that a run begun by it goes on.

000010-training.safetensors    the tensors after 10 epochs
training.json                  fingerprint, name of the tensors' file, state; written last
"""

from typing import Any

from safetensors.torch import load
from torch import Tensor

from ciess.errors import RunDirectoryError
from ciess.storage.storage import Storage

TENSORS, STATE = "training.safetensors", "training.json"


def load_first_format(folder: Storage, fingerprint: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """A checkpoint in the first format.

    Args:
        folder: of the checkpoint.
        fingerprint: of all that the state depends on.

    Returns:
        tensors and state, None where there is nothing.

    Raises:
        RunDirectoryError: it is of another training.
    """
    if not folder.exists(STATE):
        return None
    found = folder.read_json(STATE)
    if found["fingerprint"] != fingerprint:
        raise RunDirectoryError(
            f"{folder.root} holds the checkpoint of another training (fingerprint {found['fingerprint'][:12]}, "
            f"expected {fingerprint[:12]}): data, config, mask or seed differ. Choose another --out, or start anew "
            "with --overwrite."
        )
    return load(folder.read_bytes(found["tensors"])), found["state"]


def first_format_state(folder: Storage) -> dict[str, Any] | None:
    """The state of such a checkpoint, to be shown; None without one."""
    state: dict[str, Any] | None = folder.read_json(STATE)["state"] if folder.exists(STATE) else None
    return state


def delete_first_format(folder: Storage) -> None:
    """Delete the files of such a checkpoint, once another one takes its place."""
    for name in folder.names():
        if name == STATE or name.endswith(f"-{TENSORS}"):
            folder.delete(name)
