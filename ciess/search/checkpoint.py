"""Checkpoints of a search: the whole state, and a manifest with checksums that is written last.

    checkpoint/000123/    the state after 123 fits: arrays.safetensors, values.json, manifest.json

A folder without a manifest was cut short and counts as none. The last two are kept, so that a damaged one does not end
the search.
"""

import hashlib
import json
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from ciess.errors import RunDirectoryError
from ciess.storage.storage import Storage

KEPT = 2
"""Checkpoints that are kept."""

ARRAYS, VALUES, MANIFEST = "arrays.safetensors", "values.json", "manifest.json"


def save_checkpoint(folder: Storage, number: int, state: dict[str, Any], fingerprint: str) -> None:
    """Write a state_dict as checkpoint `number`, at least 1; then delete all but the last ones up to it.

    Raises RunDirectoryError where it cannot be written; earlier checkpoints are then untouched.
    """
    place = folder.child(f"{number:06d}")
    place.delete()
    # safetensors writes memory as it lies there, whatever the strides are.
    arrays = {name: np.asarray(values, order="C") for name, values in state["arrays"].items()}
    contents = {ARRAYS: save(arrays), VALUES: json.dumps(state["values"]).encode()}
    for name, content in contents.items():
        place.write_bytes(name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    place.write_json(MANIFEST, {"fingerprint": fingerprint, "fits": number, "sha256": sums})
    # Later ones are those that could not be used.
    earlier = [name for name in _numbers(folder) if int(name) < number]
    for name in _numbers(folder):
        if int(name) != number and name not in earlier[-(KEPT - 1) :]:
            folder.delete(name)


def load_checkpoint(folder: Storage, fingerprint: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The last whole state, None where there is none yet; and what is wrong with later ones, for the user to read.

    Raises RunDirectoryError where there are checkpoints and none is whole, or for one of another search. A first one
    whose writing was cut short is no loss: there is none yet.
    """
    damaged: list[str] = []
    for name in reversed(_numbers(folder)):
        place = folder.child(name)
        state, problem = _read(place, fingerprint)
        if state is not None:
            return state, [*damaged[:-1], *(f"{text} Going on from {place.root}." for text in damaged[-1:])]
        damaged.append(f"Checkpoint {place.root} cannot be used: {problem}.")
    if len(damaged) == 1 and int(name) == 1 and not place.exists(MANIFEST):
        return None, [f"{damaged[0]} It was the first one, so the search starts from the beginning."]
    if damaged:
        raise RunDirectoryError(
            f"{' '.join(damaged)} At least one whole checkpoint was expected. Restore the files, or delete "
            f"{folder.root} to search again from the start, which gives the same results."
        )
    return None, []


def last_number(folder: Storage) -> int:
    """Fits that the newest whole checkpoint holds, 0 without one."""
    whole = [name for name in _numbers(folder) if folder.child(name).exists(MANIFEST)]
    return int(whole[-1]) if whole else 0


def _numbers(folder: Storage) -> list[str]:
    return [name for name in folder.names() if name.isdigit()]


def _read(place: Storage, fingerprint: str) -> tuple[dict[str, Any] | None, str]:
    if not place.exists(MANIFEST):
        return None, "it has no manifest, so its writing was cut short"
    try:
        manifest = place.read_json(MANIFEST)
        sums, owner = {name: manifest["sha256"][name] for name in (ARRAYS, VALUES)}, str(manifest["fingerprint"])
    except (ValueError, KeyError, TypeError):
        return None, "its manifest is damaged"
    if owner != fingerprint:
        raise RunDirectoryError(
            f"{place.root} is the checkpoint of another search (fingerprint {owner[:12]}, expected "
            f"{fingerprint[:12]}): config or data differ. Choose another --out, or start anew with --overwrite."
        )
    contents = {}
    for name, expected in sums.items():
        if not place.exists(name):
            return None, f"{name} is missing"
        contents[name] = place.read_bytes(name)
        if hashlib.sha256(contents[name]).hexdigest() != expected:
            return None, f"{name} has changed"
    return {"arrays": load(contents[ARRAYS]), "values": json.loads(contents[VALUES])}, ""
