"""From a path to interactions: parse, filter, merge, split, each step counted in the notes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess.data.files import InputFiles, find_files
from ciess.data.formats import FORMATS, WITHOUT_RATINGS, check_format, choose_file, load_set, sniff
from ciess.data.interactions import Interactions, Pairs
from ciess.data.published import recognise
from ciess.data.rows import SPLITS, Columns, Rows
from ciess.data.splitting import check_split_seed, split_off_validation, split_per_user
from ciess.errors import DataError, InputError

TRAIN, VALID, TEST = range(len(SPLITS))
Codes = npt.NDArray[np.int64]


def read(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",
    split_seed: int = 0,
    min_rating: float | None = None,
    min_interactions: int = 1,
    pool_splits: bool = False,
    drop_first_row: bool = False,
    user_column: str = "user_id",
    item_column: str = "item_id",
    rating_column: str = "rating",
) -> Interactions:
    """Read interactions from a file, a folder with one recognised file, a zip archive, or a URI.

    Every interaction is a positive, whatever its rating (as in the published code). Unsplit input is
    split per user at random, 50/25/25 (paper 3.2). Split input keeps its splits; where it has no
    validation part, a random third of each user's training pairs becomes one, and a note says so.

    Args:
        path: local path, or a URI such as s3://bucket/ratings.parquet.
        format: "auto", or a key of `ciess.data.formats.FORMATS`.
        split_seed: seed of the random split, apart from all training seeds.
        min_rating: keep only ratings of at least this; None keeps all.
        min_interactions: drop users with fewer interactions than this.
        pool_splits: forget the splits of the input and split anew (the paper's Yelp2018).
        drop_first_row: leave the first interaction of the file out, as the published loader does.
        user_column: column of users in RecBole, CSV, TSV and Parquet files.
        item_column: column of items in the same files.
        rating_column: column of ratings in the same files, read only under min_rating.

    Returns:
        the interactions, with notes on everything that was dropped or merged.

    Raises:
        DataError: the input is missing, empty, malformed or of an unknown format; a column is absent;
            ids are missing or negative; ratings are missing under min_rating; nothing is left; a pair
            stands in two splits; a user has no training pair.
        InputError: an option is out of its range or does not fit the format.
    """
    options = {
        "min_rating": min_rating,
        "min_interactions": min_interactions,
        "pool_splits": pool_splits,
        "drop_first_row": drop_first_row,
        "user_column": user_column,
        "item_column": item_column,
        "rating_column": rating_column,
    }
    check_format(format)
    _check_ranges(split_seed, min_rating, min_interactions)
    if user_column == item_column:
        raise InputError(
            f"user_column and item_column are both {user_column!r}. Expected two columns. Name the right ones."
        )
    columns = Columns(user_column, item_column, None if min_rating is None else rating_column)
    files = find_files(path)
    name = choose_file(files, format)
    source = files.path
    content = files.content(name)
    told = format if format != "auto" else sniff(name, content, columns, source)
    _check_fit(told, min_rating, drop_first_row, source)
    contents = load_set(files, name, told, content)
    rows = FORMATS[told](contents, source, columns)

    notes = list(rows.notes)
    users, items, parts = _filtered(rows, min_rating, drop_first_row, notes, source)
    if parts is not None and pool_splits:
        notes.append(f"The {_listed(parts)} parts of the input are pooled and split anew.")
        parts = None
    elif pool_splits:
        notes.append("The input came without splits, so there was nothing to pool.")
    users, items, parts = _distinct(users, items, parts, len(rows.items.ids), notes, source)
    users, items, parts = _without_short_users(users, items, parts, min_interactions, notes, source)

    kept_users, users = np.unique(users, return_inverse=True)
    kept_items, items = np.unique(items, return_inverse=True)
    train, valid, test, used_seed = _split(users, items, parts, len(kept_users), split_seed, notes, source)
    return Interactions(
        name=recognise(len(rows.users.ids), len(rows.items.ids), len(rows.users.codes)) or _stem(files),
        source=source,
        user_ids=rows.users.ids.take(pa.array(kept_users)),
        item_ids=rows.items.ids.take(pa.array(kept_items)),
        train=train,
        valid=valid,
        test=test,
        split_seed=used_seed,
        sha256=_checksum(contents, options),
        notes=tuple(notes),
    )


def _check_ranges(split_seed: int, min_rating: float | None, min_interactions: int) -> None:
    check_split_seed(split_seed)
    if min_interactions < 1:
        raise InputError(
            f"min_interactions is {min_interactions}. Expected a whole number from 1; 1 keeps every user. "
            "Pass for instance min_interactions=2."
        )
    if min_rating is not None and not np.isfinite(min_rating):
        raise InputError(f"min_rating is {min_rating}. Expected a finite number. Pass for instance min_rating=4.")


def _check_fit(told: str, min_rating: float | None, drop_first_row: bool, source: str) -> None:
    if told not in WITHOUT_RATINGS:
        return
    for option, given in (("min_rating", min_rating is not None), ("drop_first_row", drop_first_row)):
        if given:
            raise InputError(
                f"{source} is of the format {told}, which has neither ratings nor one row an interaction. Expected "
                f"no {option} with it. Leave {option} out, or give the data in another format."
            )


def _filtered(
    rows: Rows, min_rating: float | None, drop_first_row: bool, notes: list[str], source: str
) -> tuple[Codes, Codes, Codes | None]:
    keep = np.ones(len(rows.users.codes), bool)
    if drop_first_row:
        keep[0] = False
        notes.append("The first row was dropped (drop_first_row), as the published loader does.")
    if min_rating is not None and rows.ratings is not None:
        null = int(np.count_nonzero(np.isnan(rows.ratings[keep])))
        if null:
            raise DataError(
                f"{source}: {null:,} of {np.count_nonzero(keep):,} rows have no rating, so min_rating={min_rating:g} "
                "cannot judge them. Expected a rating in every row. Leave min_rating out, or remove or fill these rows."
            )
        low = keep & (rows.ratings < min_rating)
        keep &= ~low
        notes.append(f"{np.count_nonzero(low):,} rows with a rating below {min_rating:g} were dropped (min_rating).")
    if not keep.any():
        raise _nothing_left(rows, min_rating, source)
    parts = None if rows.parts is None else rows.parts[keep].astype(np.int64)
    return rows.users.codes[keep].astype(np.int64), rows.items.codes[keep].astype(np.int64), parts


def _nothing_left(rows: Rows, min_rating: float | None, source: str) -> DataError:
    if min_rating is None or rows.ratings is None:
        return DataError(
            f"{source}: no row is left of {len(rows.users.codes):,} after drop_first_row. Expected one interaction or "
            "more. Leave drop_first_row out."
        )
    return DataError(
        f"{source}: no row is left of {len(rows.ratings):,} with min_rating={min_rating:g}. Expected one interaction "
        f"or more; the highest rating is {np.nanmax(rows.ratings):g}. Lower min_rating."
    )


def _distinct(
    users: Codes, items: Codes, parts: Codes | None, n_items: int, notes: list[str], source: str
) -> tuple[Codes, Codes, Codes | None]:
    """Each pair once, sorted by (user, item)."""
    keys = users * n_items + items
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    repeated = np.concatenate(([False], keys[1:] == keys[:-1]))
    first = order[~repeated]
    if parts is not None:
        group = np.cumsum(~repeated) - 1
        part_of_first = parts[first]
        spread = np.unique(group[parts[order] != part_of_first[group]])
        if len(spread):
            raise DataError(
                f"{source}: {len(spread):,} user-item pairs stand in more than one split. Expected each pair in one "
                "split. Remove them from all splits but one, or pass pool_splits=True to pool all and split anew."
            )
    if repeated.any():
        notes.append(f"{np.count_nonzero(repeated):,} duplicate user-item pairs were merged: each pair is kept once.")
    return users[first], items[first], None if parts is None else parts[first]


def _without_short_users(
    users: Codes, items: Codes, parts: Codes | None, min_interactions: int, notes: list[str], source: str
) -> tuple[Codes, Codes, Codes | None]:
    if min_interactions == 1:
        return users, items, parts
    counts = np.bincount(users)
    keep = (counts >= min_interactions)[users]
    dropped_users = int(np.count_nonzero((counts > 0) & (counts < min_interactions)))
    dropped_items = len(np.unique(items)) - len(np.unique(items[keep]))
    if not keep.any():
        raise DataError(
            f"{source}: none of {dropped_users:,} users has min_interactions={min_interactions} interactions. Expected "
            f"one such user or more. Lower min_interactions; the most active user has {counts.max():,}."
        )
    notes.append(
        f"{dropped_users:,} users with fewer than {min_interactions} interactions were dropped (min_interactions), "
        f"with {np.count_nonzero(~keep):,} interactions; {dropped_items:,} items lost all of theirs and left too."
    )
    return users[keep], items[keep], None if parts is None else parts[keep]


def _split(
    users: Codes, items: Codes, parts: Codes | None, n_users: int, split_seed: int, notes: list[str], source: str
) -> tuple[Pairs, Pairs, Pairs, int | None]:
    pairs = Pairs(users.astype(np.int32), items.astype(np.int32))
    if parts is None:
        return (*split_per_user(pairs, n_users, split_seed, source), split_seed)
    train, valid, test = (pairs.select(parts == part) for part in (TRAIN, VALID, TEST))
    if not len(train) or not len(test):
        raise DataError(
            f"{source}: the input is split but holds only {_listed(parts)} pairs. Expected train and test, or train, "
            "valid and test. Add what is missing, or pass pool_splits=True to pool all and split anew."
        )
    stranded = int(np.count_nonzero(np.bincount(train.users, minlength=n_users) == 0))
    if stranded:
        raise DataError(
            f"{source}: {stranded:,} of {n_users:,} users stand only in valid or test, without a training pair. "
            "Expected one training pair or more for every user. Remove these users, or "
            "pass pool_splits=True to split anew."
        )
    if len(valid):
        return train, valid, test, None
    given = len(train)
    train, valid = split_off_validation(train, n_users, split_seed)
    notes.append(
        f"The input came as train and test without validation: {len(valid):,} of {given:,} training pairs, a random "
        f"third of each user's, became the validation part (split_seed={split_seed}); test is as given."
    )
    return train, valid, test, split_seed


def _listed(parts: Codes) -> str:
    return " and ".join(SPLITS[part] for part in np.unique(parts))


def _stem(files: InputFiles) -> str:
    stem = PurePosixPath(files.path.rstrip("/")).stem
    return stem or "data"


def _checksum(contents: Mapping[str, bytes], options: dict[str, Any]) -> str:
    """For one file and default options this is the file's own checksum, so that `sha256sum` can confirm it."""
    digest = hashlib.sha256()
    for split, content in contents.items():
        if split:
            digest.update(f"{split} {len(content)}\n".encode())
        digest.update(content)
    defaults = read.__kwdefaults__ or {}
    changed = {name: value for name, value in sorted(options.items()) if value != defaults[name]}
    if changed:
        digest.update(b"\0" + json.dumps(changed).encode())
    return digest.hexdigest()
