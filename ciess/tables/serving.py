"""From scores to lists: original ids to codes, and the best items of many users with the known ones left out."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ciess.data import Pairs
from ciess.errors import InputError
from ciess.evaluation.ranking import BLOCK_BYTES, top_items

Codes = npt.NDArray[np.int64]
WHOLE_NUMBER = r"^\+?(-?)0*([0-9]+)$"
"""A number however it is written; its groups are the number written the plain way."""


class Recommendations(NamedTuple):
    """A list for one user, best first.

    Attributes:
        items: original ids, of the type they had in the input.
        scores: float32[len(items)], y_uv of Eq. 3.
    """

    items: list[Any]
    scores: npt.NDArray[np.float32]


def find_codes(ids: pa.Array, wanted: Sequence[str | int] | pa.Array, kind: Literal["user", "item"]) -> Codes:
    """Codes int64[len(wanted)] of original ids; `"42"` finds the number 42, and 42 finds the text `"42"`.

    Args:
        ids: the ids of all users or of all items, position = code.
        wanted: original ids.
        kind: `user` or `item`.

    Raises:
        InputError: one of `wanted` is not there.
    """
    text = pa.array(np.asarray(wanted, dtype=np.str_).astype(object), pa.string())
    if pa.types.is_integer(ids.type):
        # Compared as text, because a number too large for the type of the ids is unknown, not an overflow.
        text = pc.replace_substring_regex(pc.ascii_trim_whitespace(text), WHOLE_NUMBER, r"\1\2")
    codes = pc.index_in(text, value_set=ids.cast(pa.string()))
    if codes.null_count:
        unknown = text.filter(codes.is_null())
        others = f" ({len(unknown):,} of the {len(text):,} asked for are not)" if len(unknown) > 1 else ""
        examples = ", ".join(repr(value) for value in ids[:3].to_pylist())
        raise InputError(
            f"The {kind} {unknown[0].as_py()!r} is not in the table{others}. Expected the id of one of its "
            f"{len(ids):,} {kind}s, such as {examples}. Give an id as it stands in the data that the table was trained "
            f"on; a {kind} without interactions has no row."
        )
    found: Codes = codes.to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def hide(scores: Tensor, users: Codes, pairs: Pairs, indptr: Codes) -> None:
    """Set scores [b, n_items] of int64[b] users to -inf at their pairs, in place; indptr is that of the pairs."""
    counts = indptr[users + 1] - indptr[users]
    rows = np.repeat(np.arange(len(users)), counts)
    # Place in `pairs` of each entry: the start of its user, plus how far it is from the user's first entry.
    places = np.arange(len(rows)) + np.repeat(indptr[users] - (np.cumsum(counts) - counts), counts)
    items = pairs.items[places].astype(np.int64)
    scores[torch.from_numpy(rows).to(scores.device), torch.from_numpy(items).to(scores.device)] = -torch.inf


def rank(
    score_users: Callable[[Tensor], Tensor],
    users: Codes,
    k: int,
    n_items: int,
    device: torch.device,
    known: tuple[Pairs, Codes] | None = None,
    floats_per_score: int = 1,
) -> tuple[Codes, npt.NDArray[np.float32]]:
    """The k best items of each of int64[m] users, equal scores by item code.

    Users go in blocks sized to memory by n_items and floats_per_score.

    Args:
        score_users: from int64[b] users on `device` to float32[b, n_items].
        users: codes int64[m].
        k: items a user.
        n_items: number of items.
        device: where scores are computed.
        known: pairs to leave out and their indptr.
        floats_per_score: numbers that the model makes for a score; it sizes the blocks.

    Returns:
        codes int64[m, min(k, n_items)], -1 after the last item that is left, and their float32 scores.

    Raises:
        InputError: k < 1.
    """
    if k < 1:
        raise InputError(f"k is {k}, but the number of items to recommend must be 1 or more. Choose such a k.")
    width = min(k, n_items)
    items = np.empty((len(users), width), dtype=np.int64)
    values = np.empty((len(users), width), dtype=np.float32)
    block = max(1, BLOCK_BYTES[device.type] // (4 * n_items * floats_per_score))
    for first in range(0, len(users), block):
        rows = slice(first, first + block)
        scores = score_users(torch.from_numpy(users[rows]).to(device))
        if known is not None:
            hide(scores, users[rows], *known)
        best = top_items(scores, k)
        items[rows] = best.cpu().numpy()
        values[rows] = scores.gather(1, best.clamp(min=0)).cpu().numpy()
    return items, values
