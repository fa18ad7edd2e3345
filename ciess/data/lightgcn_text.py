"""The text format of LightGCN and NGCF: a line holds a user and then the user's items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess.data.ids import CodedIds, code_ids
from ciess.data.rows import SPLITS, Rows
from ciess.errors import DataError

SPACE, TAB, RETURN, NEWLINE = b" \t\r\n"
ZERO, NINE = b"09"


def parse_lightgcn(contents: dict[str, bytes], source: str) -> Rows:
    """Parse one unsplit file, or train.txt and test.txt, with valid.txt where there is one.

    Args:
        contents: bytes by split name ("train", "valid", "test"), or under "" for an unsplit file.
        source: path, for messages.

    Raises:
        DataError: a line holds anything but whole numbers; ids do not fit 64 bits.
    """
    users, items, parts, notes = [], [], [], []
    for split, content in contents.items():
        where = f"{source} ({split}.txt)" if split else source
        split_users, split_items, without_items = _parse(content, where)
        users.append(split_users)
        items.append(split_items)
        if split:
            parts.append(np.full(len(split_users), SPLITS.index(split), np.int8))
        if without_items:
            notes.append(f"{without_items:,} lines{f' of {split}.txt' if split else ''} name a user without any item.")
    return Rows(
        users=_code(users, "user", source),
        items=_code(items, "item", source),
        ratings=None,
        parts=np.concatenate(parts) if parts else None,
        notes=tuple(notes),
    )


def _code(columns: list[npt.NDArray[np.int64]], kind: str, source: str) -> CodedIds:
    return code_ids(pa.array(np.concatenate(columns)), kind, source, text_file=True)


def _parse(content: bytes, where: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Users and items int64[pairs] in file order, and the number of lines with a user and no item."""
    text = np.frombuffer(content, np.uint8)
    blank = (text == SPACE) | (text == TAB) | (text == RETURN) | (text == NEWLINE)
    odd = ~blank & ((text < ZERO) | (text > NINE))
    line = np.cumsum(text == NEWLINE) - (text == NEWLINE)
    if odd.any():
        number = int(line[np.argmax(odd)])
        raise DataError(
            f"{where}, line {number + 1:,} is malformed: {_excerpt(content, number)}. Expected a user and then the "
            "user's items, whole numbers apart by spaces. Correct this line, or tell the reader another format."
        )
    starts = np.flatnonzero(~blank & np.concatenate(([True], blank[:-1])))
    numbers = _numbers(text[~blank], starts, np.cumsum(~blank), where)
    line_of = line[starts]
    opens_line = np.concatenate(([True], line_of[1:] != line_of[:-1]))
    user_at = np.flatnonzero(opens_line)
    items_of_line = np.diff(np.append(user_at, len(starts))) - 1
    return np.repeat(numbers[user_at], items_of_line), numbers[~opens_line], int(np.count_nonzero(items_of_line == 0))


def _numbers(
    digits: npt.NDArray[np.uint8], starts: npt.NDArray[np.intp], kept: npt.NDArray[np.intp], where: str
) -> npt.NDArray[np.int64]:
    """Cast the tokens, given all digits without blanks and each token's start in the full text."""
    offsets = np.append(kept[starts] - 1, len(digits)).astype(np.int64)
    tokens = pa.LargeStringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(digits))
    try:
        numbers: npt.NDArray[np.int64] = tokens.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where}: an id does not fit into 64-bit signed integers ({error}). Expected ids below 2^63. "
            "Number users and items from 0, or use CSV with text ids."
        ) from error
    return numbers


def _excerpt(content: bytes, line: int) -> str:
    text = content.split(b"\n")[line].decode(errors="replace").strip()
    return repr(text if len(text) <= 60 else text[:57] + "...")
