"""Parquet files with a column of users and one of items, and perhaps ratings and splits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ciess.data.delimited import SPLIT_COLUMN, split_codes
from ciess.data.ids import code_ids
from ciess.data.rows import Columns, Rows, require_columns
from ciess.errors import DataError


def parse_parquet(content: bytes, source: str, columns: Columns) -> Rows:
    """Parse a Parquet file; a column named `split` holds train, valid or test.

    Raises:
        DataError: the file is broken or has no rows; a column is absent or of a wrong type; ids are
            missing or negative; the split column holds anything else.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        wanted = [columns.user, columns.item] + ([columns.rating] if columns.rating is not None else [])
        require_columns(file.schema_arrow.names, wanted, source)
        split = SPLIT_COLUMN in file.schema_arrow.names and SPLIT_COLUMN not in wanted
        # One thread: see storage.read_parquet.
        table = file.read(columns=wanted + [SPLIT_COLUMN] * split, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{source} is no Parquet file that can be read ({error}). Expected a complete Parquet file. "
            "Write or download it again."
        ) from error
    if len(table) == 0:
        raise DataError(
            f"{source} holds no rows. Expected one interaction or more. Check that the file was written completely."
        )
    users = code_ids(table[columns.user], "user", source, text_file=False)
    items = code_ids(table[columns.item], "item", source, text_file=False)
    ratings = None
    if columns.rating is not None:
        try:
            ratings = table[columns.rating].cast(pa.float64()).to_numpy().astype(np.float64)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{source}: the column {columns.rating!r} is of type {table[columns.rating].type} and cannot be read "
                "as numbers. Expected numeric ratings. Cast the column, or name another one with rating_column."
            ) from error
    parts = split_codes(table[SPLIT_COLUMN], source) if split else None
    return Rows(users, items, ratings, parts, users.notes + items.notes)
