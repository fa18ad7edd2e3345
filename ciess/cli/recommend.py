"""`ciess recommend`: from a saved table to recommendations on the terminal or in a file."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ciess.errors import InputError
from ciess.storage.storage import read_parquet
from ciess.tables.table import load


def write_recommendations(
    folder: str,
    user: str | None,
    users: str | None,
    out: str | None,
    k: int,
    include_seen: bool,
    history: list[str] | None = None,
) -> None:
    """Print the best items of one user or history, or write those of many users to a file.

    Args:
        folder: of the table.
        user: one original id.
        users: file with one id a line, or a Parquet file with a column user_id.
        out: file to write, `.csv` or `.parquet`.
        k: items a user.
        include_seen: whether known items are given, too.
        history: original ids of items, in place of a user.

    Raises:
        InputError: options that do not go together, or a file that cannot be read or written.
    """
    one = [name for name, value in {"--user": user, "--users": users, "--history": history}.items() if value]
    if len(one) != 1 or (users is None) != (out is None):
        items = None if history is None else " ".join(history)
        given = {"--user": user, "--history": items, "--users": users, "--out": out}
        found = " ".join(f"{name} {value}" for name, value in given.items() if value is not None) or "none of them"
        raise InputError(
            f"Found {found}. Expected --user ID or --history ITEMS alone, or --users FILE together with --out FILE. "
            "Give one of these."
        )
    if out is not None and not out.endswith((".csv", ".parquet")):
        raise InputError(
            f"The output file is {out}, but a name that ends in .csv or .parquet was expected: the ending chooses the "
            "format. Rename it."
        )
    table = load(folder)
    if users is None:
        best = table.recommend(user, k=k, include_seen=include_seen, history=history)
        for rank, (item, score) in enumerate(zip(best.items, best.scores, strict=True), start=1):
            print(f"{rank:>4}  {item!s:<24} {score:.4f}")
        return
    assert users is not None and out is not None
    many = table.recommend_many(_read_users(users), k=k, include_seen=include_seen)
    try:
        if out.endswith(".csv"):
            from pyarrow import csv

            csv.write_csv(many, out)
        else:
            pq.write_table(many, out)
    except OSError as error:
        raise InputError(
            f"Cannot write {out}: {error}. Expected a file in a folder that exists and can be written. Choose another "
            "--out."
        ) from error
    print(f"{out}: {many.num_rows:,} recommendations")


def _read_users(path: str) -> list[Any]:
    try:
        if path.endswith(".parquet"):
            table = read_parquet(Path(path).read_bytes())
            if "user_id" not in table.column_names:
                raise InputError(
                    f"{path} has no column user_id. The columns found are: {', '.join(table.column_names)}. Expected "
                    "the ids in user_id. Rename their column."
                )
            found = list(table["user_id"].to_pylist())
        else:
            found = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InputError(
            f"Cannot read users from {path}: {error}. Expected a text file with one id a line, or a "
            "Parquet file with a column user_id. Check the path."
        ) from error
    if not found:
        raise InputError(f"{path} names no user. Expected one id a line, or rows in user_id. Put the ids into it.")
    return found
