"""card.json of a saved table: what it holds, what it costs, and the checksums that tell a changed byte."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.errors import ArtifactError
from ciess.masks.budget import sparsity
from ciess.masks.mask import Mask
from ciess.masks.ragged import kind, pattern
from ciess.provenance import versions
from ciess.storage.storage import Storage
from ciess.training.loop import Recommender

FORMAT = 1
"""Of the folder of a table; a reader refuses a higher number."""

CARD = "card.json"
SEALS = ("files", "card_sha256")
"""What only the file says: bytes and sha256 of the other files, and the sha256 of the card's own content."""

PAIR_BYTES = 8
"""An interaction as two int32 codes."""


def describe(
    data: Interactions,
    config: RecommenderConfig,
    mask: Mask,
    recommender: Recommender,
    edges: int,
    known: int,
    decoder: int = 0,
) -> dict[str, Any]:
    """What a card says of any table, as JSON: origin, settings, counts over all tables of the backbone, and bytes.

    Args:
        data: interactions with n users and items.
        config: settings of the recommender.
        mask: which entries are kept.
        recommender: the trained model.
        edges: interactions in the graph.
        known: interactions that recommendations leave out.
        decoder: bytes of the maps between the table and the backbone.
    """
    share = 1 - sparsity(mask)
    full = data.n * recommender.backbone.tables * config.max_size
    kept = int(share * full)
    return {
        "format": FORMAT,
        "versions": versions(),
        "dataset": data.name,
        "data_sha256": data.sha256,
        "split_seed": data.split_seed,
        "users": data.n_users,
        "items": data.n_items,
        "config": config.model_dump(mode="json"),
        "mask": kind(mask),
        "kept_parameters": kept,
        "full_parameters": full,
        "kept_share": f"{kept}/{full}",
        "sparsity": float(1 - share),
        "bytes": footprint(mask, kept, full, recommender, edges, known, decoder),
    }


def footprint(
    mask: Mask, kept: int, full: int, recommender: Recommender, edges: int, known: int, decoder: int = 0
) -> dict[str, int]:
    """Bytes of everything that a table needs, each apart, as sparsity (Eq. 5) speaks of the first alone.

    A server needs either `serving`, or `table`, `dense_parameters` and `edges` to encode anew.

    Args:
        mask: which entries are kept.
        kept: entries kept, over all tables.
        full: entries of the full table, over all tables.
        recommender: the trained model.
        edges: interactions in the graph.
        known: interactions that recommendations leave out.
        decoder: bytes of the maps between the table and the backbone.

    Returns:
        by name: `table`, the kept values and the arrays that say where they stand; `full_table`, the values without a
        mask; `dense_parameters`, the backbone's other parameters and those of a decoder; `edges`, the graph as two
        int32 codes an interaction, 0 for a backbone without one; `known_pairs`, the same of the known interactions;
        `serving`, the encoded vectors, dense float32[n, w], and the parameters that scores need beside them (NCF's
        tower).
    """
    backbone, encoded = recommender.backbone, recommender.encoded
    parameters = list(backbone.parameters())
    with torch.enable_grad():
        score = backbone.score_all(encoded[: backbone.n_users + 1], encoded.new_zeros(1, dtype=torch.int64)).sum()
    # The parameters that a score depends on, the vectors given, are those it has a gradient for.
    used = torch.autograd.grad(score, parameters, allow_unused=True) if score.requires_grad else ()
    return {
        "table": 4 * kept + sum(part.nbytes for part in pattern(mask).values()),
        "full_table": 4 * full,
        "dense_parameters": sum(parameter.nbytes for parameter in parameters) + decoder,
        "edges": PAIR_BYTES * edges if backbone.normalisation is not None else 0,
        "known_pairs": PAIR_BYTES * known,
        "serving": encoded.nbytes + sum(gradient.nbytes for gradient in used if gradient is not None),
    }


def write_files(storage: Storage, contents: Mapping[str, bytes], card: Mapping[str, Any]) -> None:
    """Write the files of a table and, last, its card with their checksums; an old card goes first.

    So whenever the process dies, the folder has no card or is whole.

    Args:
        storage: the folder.
        contents: bytes by name of the file.
        card: what the card says beside checksums.

    Raises:
        RunDirectoryError: a file cannot be written.
    """
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    storage.delete(CARD)
    for name, content in contents.items():
        storage.write_bytes(name, content)
    sealed = {**card, "format": FORMAT, "files": files}
    storage.write_json(CARD, {**sealed, "card_sha256": content_sha256(sealed)})


def content_sha256(card: Mapping[str, Any]) -> str:
    """sha256 of what a card says, however it is laid out."""
    content = {name: value for name, value in card.items() if name != "card_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_card(storage: Storage) -> dict[str, Any]:
    """The card of a folder.

    Raises:
        ArtifactError: it is missing, damaged or of a newer format.
    """
    path = storage.path(CARD)
    if not storage.exists(CARD):
        if tables := storage.child("tables").names():
            raise ArtifactError(
                f"{storage.root} is a run directory, but the folder of one of its tables was expected. Give one of: "
                f"{', '.join(f'{storage.location}/tables/{name}' for name in tables)}."
            )
        raise ArtifactError(
            f"{storage.root} holds no {CARD}, but a saved table was expected: its card is written last. Give the "
            "folder of a table, such as runs/a/tables/equal-c90-s0; if this is one, its saving was cut short: save it "
            "again."
        )
    try:
        card = json.loads(storage.read_bytes(CARD))
        found = card["format"]
    except (ValueError, TypeError, KeyError):
        raise _changed(path) from None
    if isinstance(found, int) and found > FORMAT:
        raise ArtifactError(
            f"{path} is of format {found}, but this version of ciess ({versions()['ciess']}) understands formats up to "
            f"{FORMAT}. Upgrade ciess, for instance to the version that saved the table: "
            f"{card.get('versions', {}).get('ciess', 'unknown')}."
        )
    if card.get("card_sha256") != content_sha256(card):
        raise _changed(path)
    return dict(card)


def read_checked(storage: Storage, name: str, card: Mapping[str, Any]) -> bytes:
    """Content of a file of the table.

    Raises:
        ArtifactError: it is missing or not what the card says.
    """
    path = storage.path(name)
    if not storage.exists(name):
        raise ArtifactError(
            f"{path} is missing, but the {CARD} beside it lists it. Copy the whole folder again from where it was "
            "saved, or save the table again."
        )
    content = storage.read_bytes(name)
    if hashlib.sha256(content).hexdigest() != card["files"][name]["sha256"]:
        raise _changed(path)
    return content


def _changed(path: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is not as it was saved: its content does not have the sha256 that {CARD} holds for it, so a byte has "
        "changed. Copy the folder again from where it was saved, or save the table again."
    )
