"""Which format an input has, and the parser for each."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from ciess.data.delimited import (
    MOVIELENS_CSV_HEADER,
    first_line,
    header_of,
    parse_movielens,
    parse_movielens_csv,
    parse_named_columns,
    parse_recbole,
)
from ciess.data.files import LIGHTGCN_FILES, InputFiles
from ciess.data.lightgcn_text import parse_lightgcn
from ciess.data.parquet import parse_parquet
from ciess.data.rows import Columns, Rows
from ciess.errors import DataError

Parser = Callable[[dict[str, bytes], str, Columns], Rows]


def _only(contents: dict[str, bytes]) -> bytes:
    (content,) = contents.values()
    return content


FORMATS: dict[str, Parser] = {
    "movielens-dat": lambda contents, source, columns: parse_movielens(_only(contents), source, columns, "::"),
    "movielens-tab": lambda contents, source, columns: parse_movielens(_only(contents), source, columns, "\t"),
    "movielens-csv": lambda contents, source, columns: parse_movielens_csv(_only(contents), source, columns),
    "recbole": lambda contents, source, columns: parse_recbole(_only(contents), source, columns),
    "lightgcn": lambda contents, source, columns: parse_lightgcn(contents, source),
    "csv": lambda contents, source, columns: parse_named_columns(_only(contents), source, columns, ","),
    "tsv": lambda contents, source, columns: parse_named_columns(_only(contents), source, columns, "\t"),
    "parquet": lambda contents, source, columns: parse_parquet(_only(contents), source, columns),
}
WITHOUT_RATINGS = ("lightgcn",)
STANDARD_NAMES = {"ratings.dat": "movielens-dat", "u.data": "movielens-tab", "ratings.csv": "movielens-csv"}
SUFFIXES = {
    ".dat": "movielens-dat",
    ".data": "movielens-tab",
    ".inter": "recbole",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
}
TYPED_FIELD = re.compile(r"\w+:(token|token_seq|float|float_seq)")
RATING_LINE = re.compile(r"\d+\t\d+\t[\d.]*\t\d*")
NUMBERS_LINE = re.compile(r"\d+( \d+)*")


def check_format(name: str) -> None:
    """Check a format that the user told.

    Raises:
        DataError: it is neither "auto" nor a known format.
    """
    if name != "auto" and name not in FORMATS:
        raise DataError(
            f"{name!r} is no known format. Expected one of: auto, {', '.join(FORMATS)}. Pass one as format."
        )


def choose_file(files: InputFiles, told: str) -> str:
    """The file to read: the one named, or the only one in a folder or archive that holds interactions.

    For a LightGCN set any one of its files stands for the set.

    Raises:
        DataError: no file, or more than one, could be meant.
    """
    if files.chosen is not None:
        return files.chosen
    by_name = {name: PurePosixPath(name).name.lower() for name in files.names}
    groups = [
        [name for name, base in by_name.items() if STANDARD_NAMES.get(base) in _allowed(told)],
        [name for name, base in by_name.items() if base == "train.txt"] if "lightgcn" in _allowed(told) else [],
        [name for name, base in by_name.items() if SUFFIXES.get(PurePosixPath(base).suffix) in _allowed(told)],
    ]
    candidates = sorted({*groups[0], *groups[1]}) or groups[2]
    if len(candidates) == 1:
        return candidates[0]
    shown = ", ".join((candidates or list(files.names))[:8]) or "no files"
    what = "more than one file that may hold the interactions" if candidates else "no file in a known format"
    raise DataError(
        f"{files.path} holds {what}: {shown}. Expected one of ratings.dat, u.data, ratings.csv, a .inter, .parquet, "
        ".csv or .tsv file, or train.txt with test.txt. Give the path of the file itself, and its format if need be."
    )


def sniff(name: str, content: bytes, columns: Columns, source: str) -> str:
    """Tell the format from the first line, and from the name where the line leaves it open.

    Raises:
        DataError: the format is not recognised; the known ones are listed.
    """
    if content.startswith(b"PAR1"):
        return "parquet"
    base = PurePosixPath(name).name.lower()
    suffix = PurePosixPath(base).suffix
    first = first_line(content).strip()
    if suffix == ".inter" or all(TYPED_FIELD.fullmatch(field) for field in first.split("\t")):
        return "recbole"
    if "::" in first and suffix not in (".csv", ".tsv"):
        return "movielens-dat"
    if header_of(content, ",") == MOVIELENS_CSV_HEADER:
        return "movielens-csv"
    if base == "u.data" or (RATING_LINE.fullmatch(first) and suffix != ".tsv"):
        return "movielens-tab"
    if base in LIGHTGCN_FILES or (suffix in ("", ".txt") and NUMBERS_LINE.fullmatch(first)):
        return "lightgcn"
    for delimiter, answer in ((",", "csv"), ("\t", "tsv")):
        if columns.user in header_of(content, delimiter) and suffix not in SUFFIXES:
            return answer
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    raise DataError(
        f"{source}: the format is not recognised; the first line is {first[:80]!r}. Expected one of: "
        f"{', '.join(FORMATS)}. Pass one as format; for a table, name its columns with user_column and item_column."
    )


def load_set(files: InputFiles, name: str, format: str, content: bytes) -> dict[str, bytes]:
    """The content of the file `name`; for a LightGCN set of all its files, by split name, in the order of the splits.

    Raises:
        DataError: a file is empty or unreadable; train.txt or test.txt has no counterpart.
    """
    if format != "lightgcn" or PurePosixPath(name).name not in LIGHTGCN_FILES:
        return {"": content}
    beside = {file: str(PurePosixPath(name).with_name(file)) for file in LIGHTGCN_FILES}
    for needed in ("train.txt", "test.txt"):
        if beside[needed] not in files.names:
            raise DataError(
                f"{files.path}: there is no {needed} beside {name}. Expected train.txt and test.txt "
                "together, as LightGCN ships them. Put both into one folder; a "
                "single unsplit file of this format needs another name."
            )
    return {
        file.removesuffix(".txt"): files.content(beside[file]) for file in LIGHTGCN_FILES if beside[file] in files.names
    }


def _allowed(told: str) -> tuple[str, ...]:
    return tuple(FORMATS) if told == "auto" else (told,)
