"""Checkpoints of a search: the whole state, and a manifest with checksums that is written last.

    checkpoint/000123/    the state after 123 fits: arrays.safetensors, values.json, manifest.json

A folder without a whole manifest was cut short and counts as none. The last two are kept, so that a damaged one does
not end the search.
"""

import hashlib
import json
from typing import Any

from safetensors.numpy import load, save

from ciess.errors import RunDirectoryError
from ciess.storage import Storage

KEPT = 2
"""Checkpoints that are kept."""

ARRAYS, VALUES, MANIFEST = "arrays.safetensors", "values.json", "manifest.json"


def save_checkpoint(folder: Storage, number: int, state: dict[str, Any], fingerprint: str) -> None:
    """Write a state_dict as checkpoint `number`; then delete all but the last.

    Raises RunDirectoryError where it cannot be written; earlier checkpoints are then untouched.
    """
    place = folder.child(f"{number:06d}")
    place.delete()
    contents = {ARRAYS: save(state["arrays"]), VALUES: json.dumps(state["values"]).encode()}
    for name, content in contents.items():
        place.write_bytes(name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    place.write_json(MANIFEST, {"fingerprint": fingerprint, "fits": number, "sha256": sums})
    for name in _numbers(folder)[:-KEPT]:
        folder.delete(name)


def load_checkpoint(folder: Storage, fingerprint: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The last whole state, None where there is no checkpoint; and what was wrong with later ones, a sentence each.

    Raises RunDirectoryError where there are checkpoints and none is whole, or for one of another search.
    """
    damaged: list[str] = []
    for name in reversed(_numbers(folder)):
        place = folder.child(name)
        state, problem = _read(place, fingerprint)
        if state is not None:
            return state, [f"{text} Going on from the checkpoint before it, {place.root}." for text in damaged[-1:]]
        damaged.append(f"Checkpoint {place.root} cannot be used: {problem}.")
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
        sums, owner = dict(manifest["sha256"]), manifest["fingerprint"]
    except (ValueError, KeyError, TypeError):
        return None, "its manifest is damaged"
    if owner != fingerprint:
        raise RunDirectoryError(
            f"{place.root} is the checkpoint of another search (fingerprint {owner[:12]}, expected "
            f"{fingerprint[:12]}): config, data or reference differ. Choose another --out, or start anew with "
            "--overwrite."
        )
    contents = {}
    for name, expected in sums.items():
        if not place.exists(name):
            return None, f"{name} is missing"
        contents[name] = place.read_bytes(name)
        if hashlib.sha256(contents[name]).hexdigest() != expected:
            return None, f"{name} has changed"
    return {"arrays": load(contents[ARRAYS]), "values": json.loads(contents[VALUES])}, ""
