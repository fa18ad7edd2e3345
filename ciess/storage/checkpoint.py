"""Checkpoints of whatever goes on after an interruption: its whole state, and a manifest that is written last.

    <folder>/000123/    the state after 123 fits or epochs: arrays.safetensors, values.json, manifest.json

The manifest holds the sha256 of the other two and says whose they are. A folder without one was cut short and counts as
none. The last two are kept, so that a damaged one does not end the run.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from ciess.errors import RunDirectoryError
from ciess.storage.storage import Storage

KEPT = 2
"""Checkpoints that are kept."""

ARRAYS, VALUES, MANIFEST = "arrays.safetensors", "values.json", "manifest.json"


def save_checkpoint(folder: Storage, number: int, state: Mapping[str, Any], fingerprint: str) -> None:
    """Write a state; then delete all but the last ones up to it.

    Args:
        folder: of all checkpoints of a run.
        number: how far the state is, such as fits or epochs; at most six digits.
        state: `arrays` by name, and `values` that JSON can hold.
        fingerprint: of all that the state depends on.

    Raises:
        RunDirectoryError: it cannot be written; earlier checkpoints are then untouched.
    """
    own = folder.child(f"{number:06d}")
    own.delete()
    # safetensors writes memory as it lies there, whatever the strides are.
    arrays = {name: np.asarray(values, order="C") for name, values in state["arrays"].items()}
    contents = {ARRAYS: save(arrays), VALUES: json.dumps(state["values"]).encode()}
    for name, content in contents.items():
        own.write_bytes(name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    own.write_json(MANIFEST, {"fingerprint": fingerprint, "number": number, "sha256": sums})
    # Later ones are those that could not be used.
    earlier = [name for name in _numbers(folder) if int(name) < number]
    for name in _numbers(folder):
        if int(name) != number and name not in earlier[-(KEPT - 1) :]:
            folder.delete(name)


def load_checkpoint(
    folder: Storage, fingerprint: str, first: int | None = 1
) -> tuple[dict[str, Any] | None, list[str]]:
    """The last whole state.

    A first one whose writing was cut short is no loss: there is none yet.

    Args:
        folder: of all checkpoints of a run.
        fingerprint: of all that the state depends on.
        first: number of the first one that a run writes, None where that varies.

    Returns:
        the state, None where there is none yet; and what is wrong with later ones, for the user to read.

    Raises:
        RunDirectoryError: there are checkpoints and none is whole, or one is of another run.
    """
    damaged: list[str] = []
    names = _numbers(folder)
    for name in reversed(names):
        own = folder.child(name)
        state, problem = _read(own, fingerprint)
        if state is not None:
            return state, [*damaged[:-1], *(f"{text} Going on from {own.root}." for text in damaged[-1:])]
        damaged.append(f"Checkpoint {own.root} cannot be used: {problem}.")
    # Two are kept, so one alone is the first, unless somebody deleted others.
    alone = len(names) == 1 and first in (None, int(names[0]))
    if alone and not folder.child(names[0]).exists(MANIFEST):
        return None, [f"{damaged[0]} It was the first one, so all begins from the start."]
    if damaged:
        raise RunDirectoryError(
            f"{' '.join(damaged)} At least one whole checkpoint was expected. Restore the files, or delete "
            f"{folder.root} to begin again from the start, which gives the same results."
        )
    return None, []


def last_number(folder: Storage) -> int:
    """Number of the newest whole checkpoint, 0 without one."""
    whole = _whole(folder)
    return int(whole[-1]) if whole else 0


def last_values(folder: Storage) -> dict[str, Any] | None:
    """What the newest whole checkpoint holds beside arrays, to be shown; None without one."""
    whole = _whole(folder)
    values: dict[str, Any] | None = folder.read_json(f"{whole[-1]}/{VALUES}") if whole else None
    return values


def _whole(folder: Storage) -> list[str]:
    return [name for name in _numbers(folder) if folder.child(name).exists(MANIFEST)]


def _numbers(folder: Storage) -> list[str]:
    return [name for name in folder.names() if name.isdigit()]


def _read(own: Storage, fingerprint: str) -> tuple[dict[str, Any] | None, str]:
    if not own.exists(MANIFEST):
        return None, "it has no manifest, so its writing was cut short"
    try:
        manifest = own.read_json(MANIFEST)
        sums, owner = {name: manifest["sha256"][name] for name in (ARRAYS, VALUES)}, str(manifest["fingerprint"])
    except (ValueError, KeyError, TypeError):
        return None, "its manifest is damaged"
    if owner != fingerprint:
        raise RunDirectoryError(
            f"{own.root} is the checkpoint of another run (fingerprint {owner[:12]}, expected {fingerprint[:12]}): "
            "data, config or seed differ. Choose another --out, or start anew with --overwrite."
        )
    contents = {}
    for name, expected in sums.items():
        if not own.exists(name):
            return None, f"{name} is missing"
        contents[name] = own.read_bytes(name)
        if hashlib.sha256(contents[name]).hexdigest() != expected:
            return None, f"{name} has changed"
    return {"arrays": load(contents[ARRAYS]), "values": json.loads(contents[VALUES])}, ""
