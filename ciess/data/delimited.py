"""Text files with one interaction a line: MovieLens, RecBole, CSV and TSV."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from ciess.data.ids import code_ids
from ciess.data.rows import SPLITS, Columns, Rows, require_columns
from ciess.errors import DataError

MOVIELENS_COLUMNS = ["user", "item", "rating", "timestamp"]
MOVIELENS_CSV_HEADER = ["userId", "movieId", "rating", "timestamp"]
SPLIT_COLUMN = "split"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONGEST_HEADER = 2**16
TEXT = pa.dictionary(pa.int32(), pa.string())
INTEGER_TEXT = re.compile(r"\s*([+-]?\d+|NaN|nan|NA|N/A|null|NULL|)\s*")
NUMBER_TEXT = re.compile(r"\s*([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan|NaN)|NA|N/A|null|NULL|)\s*")


@dataclass(frozen=True)
class Layout:
    """How the lines of a file are built."""

    separator: str
    header: list[str]
    header_lines: int
    quoted: bool

    def fields(self, line: str) -> list[str]:
        """Fields of one line."""
        if not self.quoted:
            return line.split(self.separator)
        return next(csv.reader([line], delimiter=self.separator), [])


def parse_movielens(content: bytes, source: str, columns: Columns, separator: str) -> Rows:
    """Parse `ratings.dat` (separator `::`) or `u.data` (tab): user, item, rating, timestamp, no header.

    Raises:
        DataError: a line is malformed (with its number); ids are missing or negative.
    """
    named = Columns("user", "item", None if columns.rating is None else "rating")
    layout = Layout(separator, MOVIELENS_COLUMNS, header_lines=0, quoted=False)
    return _parse(content, source, layout, named, pa.int64())


def parse_movielens_csv(content: bytes, source: str, columns: Columns) -> Rows:
    """Parse `ratings.csv`: header userId,movieId,rating,timestamp.

    Raises:
        DataError: the header differs; a line is malformed (with its number); ids are missing or negative.
    """
    named = Columns("userId", "movieId", None if columns.rating is None else "rating")
    header = header_of(content, ",")
    require_columns(header, MOVIELENS_CSV_HEADER, source)
    return _parse(content, source, Layout(",", header, header_lines=1, quoted=True), named, pa.int64())


def parse_recbole(content: bytes, source: str, columns: Columns) -> Rows:
    """Parse RecBole's atomic `.inter` file: tab-separated, header fields such as `user_id:token`.

    Raises:
        DataError: a column is absent; a line is malformed (with its number); ids are missing or negative.
    """
    header = [field.partition(":")[0] for field in header_of(content, "\t", quoted=False)]
    return _parse(content, source, Layout("\t", header, header_lines=1, quoted=False), columns, TEXT)


def parse_named_columns(content: bytes, source: str, columns: Columns, separator: str) -> Rows:
    """Parse CSV or TSV with a header; a column named `split` holds train, valid or test.

    Raises:
        DataError: a column is absent; a line is malformed (with its number); ids are missing or
            negative; the split column holds anything else.
    """
    layout = Layout(separator, header_of(content, separator), header_lines=1, quoted=True)
    return _parse(content, source, layout, columns, TEXT)


def header_of(content: bytes, separator: str, *, quoted: bool = True) -> list[str]:
    """Fields of the first line that is not empty."""
    return Layout(separator, [], header_lines=1, quoted=quoted).fields(first_line(content))


def first_line(content: bytes) -> str:
    """The first line that is not empty, cut off where it is longer than any header."""
    start = content[:LONGEST_HEADER].removeprefix(BYTE_ORDER_MARK).lstrip(b"\r\n")
    return start.split(b"\n", 1)[0].decode(errors="replace").rstrip("\r")


def split_codes(column: pa.ChunkedArray, source: str) -> npt.NDArray[np.int8]:
    """Positions in SPLITS, int8[rows], of a column of split names.

    Raises:
        DataError: a name is none of train, valid, test, or is missing.
    """
    names = column.cast(pa.string())
    codes = pc.index_in(names, pa.array(SPLITS))
    if codes.null_count:
        shown = ", ".join(repr(value) for value in pc.unique(names).to_pylist()[:6] if value not in SPLITS)
        raise DataError(
            f"{source}: {codes.null_count:,} rows have {shown} in the column {SPLIT_COLUMN!r}. Expected train, valid "
            "or test in every row. Rename the values, or drop the column to have the data split at random."
        )
    parts: npt.NDArray[np.int8] = codes.to_numpy().astype(np.int8)
    return parts


def _parse(content: bytes, source: str, layout: Layout, columns: Columns, id_type: pa.DataType) -> Rows:
    types = {columns.user: id_type, columns.item: id_type}
    if columns.rating is not None:
        types[columns.rating] = pa.float64()
    require_columns(layout.header, list(types), source)
    has_splits = SPLIT_COLUMN in layout.header and SPLIT_COLUMN not in types
    if has_splits:
        types[SPLIT_COLUMN] = TEXT
    table = _table(content, source, layout, types)
    users = code_ids(table[columns.user], "user", source, text_file=True)
    items = code_ids(table[columns.item], "item", source, text_file=True)
    return Rows(
        users=users,
        items=items,
        ratings=None if columns.rating is None else table[columns.rating].to_numpy(),
        parts=split_codes(table[SPLIT_COLUMN], source) if has_splits else None,
        notes=users.notes + items.notes,
    )


def _table(content: bytes, source: str, layout: Layout, types: dict[str, pa.DataType]) -> pa.Table:
    text = content.removeprefix(BYTE_ORDER_MARK).lstrip(b"\r\n")
    delimiter = layout.separator
    if len(delimiter) > 1:
        text, delimiter = text.replace(delimiter.encode(), b"\t"), "\t"
    try:
        table = pa_csv.read_csv(
            io.BytesIO(text),
            read_options=pa_csv.ReadOptions(column_names=layout.header, skip_rows=layout.header_lines),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, quote_char='"' if layout.quoted else False),
            convert_options=pa_csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
    except pa.ArrowInvalid as error:
        raise _malformed(content, source, layout, types, error) from error
    if len(table) == 0:
        raise DataError(
            f"{source} holds a header and no interactions. Expected one interaction or more below the header. "
            "Check that the file was written completely."
        )
    return table


def _malformed(
    content: bytes, source: str, layout: Layout, types: dict[str, pa.DataType], error: Exception
) -> DataError:
    """Find the line at fault; a scan in Python, paid only by a file that is refused."""
    expected = f"{len(layout.header)} fields ({', '.join(layout.header)}) apart by {layout.separator!r}"
    patterns = {
        position: INTEGER_TEXT if types[name] == pa.int64() else NUMBER_TEXT
        for position, name in enumerate(layout.header)
        if types.get(name, TEXT) != TEXT
    }
    header_lines = layout.header_lines
    for number, line in enumerate(content.removeprefix(BYTE_ORDER_MARK).split(b"\n"), 1):
        text = line.decode(errors="replace").rstrip("\r")
        if text and header_lines:
            header_lines -= 1
            continue
        fields = layout.fields(text)
        complete = len(fields) == len(layout.header)
        odd_number = complete and any(not pattern.fullmatch(fields[at]) for at, pattern in patterns.items())
        if text and (not complete or odd_number or "\ufffd" in text):
            shown = text if len(text) <= 80 else text[:77] + "..."
            return DataError(
                f"{source}, line {number:,} is malformed: {shown!r}. Expected {expected}, in UTF-8, with whole "
                "numbers as MovieLens ids and numbers as ratings. Correct this line, or tell the reader another format."
            )
    return DataError(
        f"{source} cannot be parsed ({error}). Expected {expected}. "
        "Correct the file, or tell the reader another format."
    )
