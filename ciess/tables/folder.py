"""The folder of a saved table, which can be read without ciess.

    weights.safetensors   a PrefixMask: `values` float32[kept], `sizes` int16[n];
                          a SparseMask: `values` float32[kept], `columns` uint8 or int16[kept of the mask], `indptr`
                          int32 or int64[n + 1]. Rows are users first, then items; values go row by row, in a row
                          table by table (NCF: GMF, then tower), in a table by column
    model.safetensors     the backbone's other parameters by name, none for LightGCN; `decoder.`..., where a chain of
                          maps stands between the table and the backbone
    ids.parquet           a row for each row of the table: user_id or item_id, the other one null
    edges.parquet         all known interactions: user, item (int32 codes), in_graph: the model was trained on it
    card.json             settings, counts, bytes, versions, and the sha256 of every file, its own content included

The card is written last, so a folder with a card is whole.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from safetensors.numpy import load, save

from ciess.config.recommender import RecommenderConfig
from ciess.data import Pairs
from ciess.data.row_counts import RowCounts
from ciess.errors import ArtifactError
from ciess.masks.mask import Mask
from ciess.masks.ragged import pattern, unpack
from ciess.provenance import versions
from ciess.storage.storage import Storage, read_parquet
from ciess.tables.card import CARD, SEALS, read_card, read_checked

WEIGHTS, MODEL, IDS, EDGES = "weights.safetensors", "model.safetensors", "ids.parquet", "edges.parquet"

Floats = npt.NDArray[np.float32]


def to_files(
    rows: RowCounts,
    mask: Mask,
    values: Floats,
    weights: Mapping[str, Floats],
    known: Pairs,
    in_graph: npt.NDArray[np.bool_],
) -> dict[str, bytes]:
    """What goes into the folder beside the card.

    Args:
        rows: the original ids.
        mask: which entries are kept.
        values: float32[kept].
        weights: the backbone's other parameters by name.
        known: all interactions known.
        in_graph: bool[known], the model was trained on it.

    Returns:
        contents by name of the file.
    """
    ids = {
        "user_id": pa.chunked_array([rows.user_ids, pa.nulls(rows.n_items, rows.user_ids.type)]),
        "item_id": pa.chunked_array([pa.nulls(rows.n_users, rows.item_ids.type), rows.item_ids]),
    }
    return {
        WEIGHTS: save({"values": np.ascontiguousarray(values), **pattern(mask)}),
        MODEL: save({name: np.ascontiguousarray(value) for name, value in weights.items()}),
        IDS: _parquet(ids),
        EDGES: _parquet({"user": known.users, "item": known.items, "in_graph": in_graph}),
    }


def read_folder(storage: Storage) -> dict[str, Any]:
    """What a folder holds, by the fields of a CompressedTable.

    Args:
        storage: the folder.

    Returns:
        every field but the device.

    Raises:
        ArtifactError: the card or a file is missing, a byte has changed, or the format is newer.
    """
    card = read_card(storage)
    contents = {name: read_checked(storage, name, card) for name in (WEIGHTS, MODEL, IDS, EDGES)}
    try:
        config = RecommenderConfig(**card["config"])
    except ValidationError as error:
        problem = error.errors()[0]
        raise ArtifactError(
            f"The config in {storage.path(CARD)} is not one of ciess {versions()['ciess']}: "
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}. The table was saved by ciess "
            f"{card['versions']['ciess']}: install that version to read it."
        ) from None
    weights, ids, edges = load(contents[WEIGHTS]), read_parquet(contents[IDS]), read_parquet(contents[EDGES])
    known = Pairs(edges["user"].to_numpy(), edges["item"].to_numpy())
    return {
        "config": config,
        "mask": unpack(card["mask"], weights, config.max_size),
        "values": weights["values"],
        "weights": load(contents[MODEL]),
        "user_ids": ids["user_id"].combine_chunks().drop_null(),
        "item_ids": ids["item_id"].combine_chunks().drop_null(),
        "graph_pairs": known.select(edges["in_graph"].to_numpy()),
        "known_pairs": known,
        "card": {name: value for name, value in card.items() if name not in SEALS},
    }


def _parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()
