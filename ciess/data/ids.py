"""Original ids of users and items, of any type, to codes and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ciess.errors import DataError

WHOLE_NUMBER = r"^(0|-?[1-9][0-9]*)$"
DECIMAL_WHOLE_NUMBER = r"^(0|-?[1-9][0-9]*)(\.0+)?$"
MISSING = ("", "nan", "NaN", "NAN", "null", "NULL", "None", "NA", "N/A", "<NA>")


@dataclass(frozen=True, eq=False)
class CodedIds:
    """A column of ids: each row's code, and the ids in ascending order, position = code.

    Attributes:
        ids: int64 or string, unique, ascending (numbers by value, text by code point).
        codes: int32[rows].
        notes: what was assumed about the column.
    """

    ids: pa.Array
    codes: npt.NDArray[np.int32]
    notes: tuple[str, ...] = ()


def code_ids(column: pa.ChunkedArray | pa.Array, kind: str, source: str, *, text_file: bool) -> CodedIds:
    """Code a column of ids.

    Whole numbers stay int64 and text stays string. In a text file everything is text, so there a
    column is of numbers when each value is a whole number written the plain way ("007" is text).

    Args:
        column: the ids, any integer, float or string type, dictionary-encoded or not.
        kind: "user" or "item", for messages.
        source: path, for messages.
        text_file: whether strings may be numbers that were written as text.

    Raises:
        DataError: ids are missing, NaN, negative, broken numbers, or of a type that is no id.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    values, indices = array.dictionary, array.indices
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    missing = indices.null_count
    if missing:
        raise _missing(kind, source, missing, int(pc.index(pc.is_null(indices), True).as_py()))
    rows = indices.to_numpy(zero_copy_only=False)
    notes: tuple[str, ...] = ()
    if pa.types.is_string(values.type):
        values, notes = _from_text(values, rows, kind, source, text_file)
    elif pa.types.is_floating(values.type):
        values, notes = _from_floats(values, rows, kind, source)
    elif pa.types.is_integer(values.type):
        values = _as_int64(values, kind, source)
    else:
        raise DataError(
            f"{source}: the {kind} ids are of type {values.type}. Expected whole numbers or text. "
            f"Cast the {kind} column to int64 or string."
        )
    if pa.types.is_integer(values.type):
        _refuse_negative(values, rows, kind, source)
    return _sorted(values, rows, notes)


def _sorted(values: pa.Array, rows: npt.NDArray[np.int32], notes: tuple[str, ...]) -> CodedIds:
    # Two spellings of a number ("1" and "1.0") are one id, and a dictionary may list values that no row uses.
    distinct = values.dictionary_encode()
    rows = distinct.indices.to_numpy(zero_copy_only=False)[rows]
    used = np.bincount(rows, minlength=len(distinct.dictionary)) > 0
    order = pc.sort_indices(distinct.dictionary).to_numpy(zero_copy_only=False)
    order = order[used[order]]
    code_of = np.full(len(distinct.dictionary), -1, np.int32)
    code_of[order] = np.arange(len(order), dtype=np.int32)
    return CodedIds(distinct.dictionary.take(pa.array(order)), code_of[rows], notes)


def _from_text(
    values: pa.Array, rows: npt.NDArray[np.int32], kind: str, source: str, text_file: bool
) -> tuple[pa.Array, tuple[str, ...]]:
    empty = pc.equal(values, "").to_numpy(zero_copy_only=False)
    if empty[rows].any():
        raise _missing(kind, source, int(empty[rows].sum()), int(np.argmax(empty[rows])))
    if not text_file:
        return values, ()
    plain = pc.match_substring_regex(values, WHOLE_NUMBER).to_numpy(zero_copy_only=False)
    decimal = pc.match_substring_regex(values, DECIMAL_WHOLE_NUMBER).to_numpy(zero_copy_only=False)
    absent = pc.is_in(values, pa.array(MISSING)).to_numpy(zero_copy_only=False)
    if absent.any() and (decimal | absent).all():
        raise _missing(kind, source, int(absent[rows].sum()), int(np.argmax(absent[rows])))
    if plain.all():
        try:
            return values.cast(pa.int64()), ()
        except pa.ArrowInvalid:
            return values, (f"The {kind} ids hold numbers beyond 64 bits and are read as text.",)
    if decimal.all():
        whole = pc.replace_substring_regex(values, r"\.0+$", "")
        note = f"The {kind} ids are written as decimals such as {values[0].as_py()} and are read as whole numbers."
        try:
            return whole.cast(pa.int64()), (note,)
        except pa.ArrowInvalid:
            return values, ()
    if 2 * np.count_nonzero(plain) > len(values):
        odd = values[int(np.argmin(plain))].as_py()
        return values, (
            f"{np.count_nonzero(~plain):,} of {len(values):,} {kind} ids are no whole numbers (such as {odd!r}), "
            "so all are read as text.",
        )
    return values, ()


def _from_floats(
    values: pa.Array, rows: npt.NDArray[np.int32], kind: str, source: str
) -> tuple[pa.Array, tuple[str, ...]]:
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    broken = np.isnan(numbers)
    if broken[rows].any():
        raise _missing(kind, source, int(broken[rows].sum()), int(np.argmax(broken[rows])))
    # Beyond 2^53 neighbouring whole numbers share one float, so two ids might have become one.
    unsafe = (numbers != np.floor(numbers)) | (np.abs(numbers) > 2**53)
    if unsafe.any():
        raise DataError(
            f"{source}: the {kind} ids are floating-point numbers, {np.count_nonzero(unsafe):,} of them no whole "
            f"numbers within 2^53, such as {float(numbers[np.argmax(unsafe)])!r}. Expected whole numbers or text. "
            f"Cast the {kind} column to int64 or string."
        )
    return pa.array(numbers.astype(np.int64)), (f"The {kind} ids are floats and are read as whole numbers.",)


def _as_int64(values: pa.Array, kind: str, source: str) -> pa.Array:
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{source}: the {kind} ids do not fit into 64-bit signed integers ({error}). Expected ids below 2^63. "
            f"Cast the {kind} column to string."
        ) from error


def _refuse_negative(values: pa.Array, rows: npt.NDArray[np.int32], kind: str, source: str) -> None:
    numbers = values.to_numpy(zero_copy_only=False)
    negative = (numbers < 0)[rows]
    if negative.any():
        first = int(np.argmax(negative))
        raise DataError(
            f"{source}: {np.count_nonzero(negative):,} {kind} ids are negative, the first {numbers[rows[first]]} in "
            f"data row {first + 1:,}. Expected whole numbers from 0; negative ones often stand for a missing id. "
            "Remove these rows, or give the ids as text."
        )


def _missing(kind: str, source: str, count: int, first: int) -> DataError:
    return DataError(
        f"{source}: {count:,} {kind} ids are missing or NaN, the first in data row {first + 1:,}. "
        "Expected an id in every row. Remove these rows or fill in the ids."
    )
