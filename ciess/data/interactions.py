"""Who interacted with what: the one data structure that every other floor works on."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess.data.row_counts import RowCounts
from ciess.errors import DataError

PART_WORDS = {"train": "training", "valid": "validation", "test": "test"}
"""How messages name the parts of a split."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """User-item pairs as codes, sorted by (user, item), each pair once.

    Attributes:
        users: int32[m], codes in [0, n_users).
        items: int32[m], codes in [0, n_items).

    Raises:
        ValueError: the arrays differ in length or dtype, or are not sorted and unique.
    """

    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        if self.users.shape != self.items.shape or self.users.ndim != 1:
            raise ValueError(f"users {self.users.shape} and items {self.items.shape} must be vectors of one length")
        if self.users.dtype != np.int32 or self.items.dtype != np.int32:
            raise ValueError(f"users ({self.users.dtype}) and items ({self.items.dtype}) must be int32")
        user_steps = np.diff(self.users)
        if np.any(user_steps < 0) or np.any((user_steps == 0) & (np.diff(self.items) <= 0)):
            raise ValueError("pairs must be sorted by (user, item) and unique; Pairs.sorted sorts them")

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def sorted(cls, users: npt.NDArray[Any], items: npt.NDArray[Any]) -> Pairs:
        """Pairs from codes int[m] in any order.

        Raises:
            ValueError: a pair comes twice.
        """
        # One number a pair: sorting these takes a tenth of the time of sorting by two columns.
        width = int(items.max(initial=0)) + 1
        keys = users.astype(np.int64) * width + items
        keys.sort()
        return cls((keys // width).astype(np.int32), (keys % width).astype(np.int32))

    @classmethod
    def none(cls) -> Pairs:
        """Zero pairs."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int32))

    def indptr(self, n_users: int) -> npt.NDArray[np.int64]:
        """CSR row pointers over users, int64[n_users + 1]: user u owns items[indptr[u]:indptr[u + 1]]."""
        pointers = np.zeros(n_users + 1, np.int64)
        np.cumsum(np.bincount(self.users, minlength=n_users), out=pointers[1:])
        return pointers

    def degrees(self, n_users: int, n_items: int) -> npt.NDArray[np.int64]:
        """Pairs of each user, then of each item.

        Args:
            n_users: number of users.
            n_items: number of items.

        Returns:
            int64[n_users + n_items].
        """
        return np.concatenate([_degrees(self.users, n_users), _degrees(self.items, n_items)])

    def select(self, keep: npt.NDArray[np.bool_]) -> Pairs:
        """The pairs where keep, bool[m], holds."""
        return Pairs(self.users[keep], self.items[keep])

    def of_users(self, users: npt.NDArray[np.int64], n_users: int) -> Pairs:
        """The pairs of some users, who are then coded by their order.

        Args:
            users: codes int64[m], ascending.
            n_users: number of all users.

        Returns:
            pairs with users in [0, m).
        """
        place = np.full(n_users, -1, np.int32)
        place[users] = np.arange(len(users), dtype=np.int32)
        kept = place[self.users] >= 0
        return Pairs(place[self.users[kept]], self.items[kept])

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs.sorted(
            np.concatenate([self.users, other.users]),
            np.concatenate([self.items, other.items]),
        )


@dataclass(frozen=True, eq=False)
class Interactions(RowCounts):
    """A data set: original ids, and the pairs of the three splits as codes.

    A row exists for each user and each item with at least one interaction in any split; ids that
    never interact have none, as they would be parameters that cost nothing to prune (Eq. 5 counts
    rows). Codes follow the ascending order of the original ids, so they do not depend on the order
    of rows in a file. An item may have no training pair; a user has at least one.

    Attributes:
        name: `ml-1m`, `ml-100k`, `yelp2018` where the counts of the input say so, else the stem of
            the file or folder, or `planted`.
        source: the path that the user gave, or `planted`.
        user_ids: n_users original ids, int64 or string, position = code.
        item_ids: n_items original ids, int64 or string, position = code.
        train: pairs to fit on.
        valid: pairs to choose on.
        test: pairs to touch once.
        split_seed: seed of the random split; None where the input came fully split.
        sha256: of the bytes of the input files, and of those reading options that change the content
            and are not at their default; of the arrays for planted data.
        notes: what reading dropped, merged or assumed, a sentence each, with counts.
    """

    name: str
    source: str
    user_ids: pa.Array
    item_ids: pa.Array
    train: Pairs
    valid: Pairs
    test: Pairs
    split_seed: int | None
    sha256: str
    notes: tuple[str, ...]

    def user_degrees(self) -> npt.NDArray[np.int64]:
        """Training pairs of each user.

        Returns:
            int64[n_users].
        """
        return _degrees(self.train.users, self.n_users)

    def item_degrees(self) -> npt.NDArray[np.int64]:
        """Training pairs of each item; 0 for an item that is only held out.

        Returns:
            int64[n_items].
        """
        return _degrees(self.train.items, self.n_items)

    def degrees(self) -> npt.NDArray[np.int64]:
        """Training pairs of each row, users first.

        Returns:
            int64[n].
        """
        return self.train.degrees(self.n_users, self.n_items)

    def require(self, *parts: str) -> None:
        """Refuse data of which a part has no pairs.

        Args:
            parts: names out of `train`, `valid` and `test`.

        Raises:
            DataError: one of them is empty.
        """
        counts = {part: len(getattr(self, part)) for part in parts}
        if min(counts.values(), default=1) == 0:
            pairs = " and ".join(f"{count:,} {PART_WORDS[part]}" for part, count in counts.items())
            raise DataError(
                f"{self.source} has {pairs} pairs, but one or more{' of each' if len(parts) > 1 else ''} were "
                "expected. Give data with more interactions a user."
            )

    def merged(self) -> Interactions:
        """The same data with validation pairs moved into train and valid empty: for the refit.

        Returns:
            the merged data, the same object each time, so that what is built for it serves every table.
        """
        return self._merged

    @functools.cached_property
    def _merged(self) -> Interactions:
        return dataclasses.replace(self, train=self.train + self.valid, valid=Pairs.none())

    def of_users(self, users: npt.NDArray[np.int64]) -> Interactions:
        """The same data with some of its users alone.

        Args:
            users: codes int64[m], ascending.

        Returns:
            m users, and all items, those included that none of them has.
        """
        parts = {part: getattr(self, part).of_users(users, self.n_users) for part in PART_WORDS}
        return dataclasses.replace(self, user_ids=self.user_ids.take(pa.array(users)), **parts)

    def counts(self) -> dict[str, Any]:
        """Sizes of the data set, ready for JSON.

        Returns:
            users, items, interactions (all splits), density = interactions / (users x items),
            user_degree and item_degree (each min, mean, max over all splits), train, valid, test.
        """
        splits = (self.train, self.valid, self.test)
        interactions = sum(len(pairs) for pairs in splits)
        users = sum(_degrees(pairs.users, self.n_users) for pairs in splits)
        items = sum(_degrees(pairs.items, self.n_items) for pairs in splits)
        return {
            "users": self.n_users,
            "items": self.n_items,
            "interactions": interactions,
            "density": interactions / (self.n_users * self.n_items),
            "user_degree": _spread(users),
            "item_degree": _spread(items),
            "train": len(self.train),
            "valid": len(self.valid),
            "test": len(self.test),
        }


def _degrees(codes: npt.NDArray[np.int32], size: int) -> npt.NDArray[np.int64]:
    return np.bincount(codes, minlength=size).astype(np.int64, copy=False)


def _spread(degrees: Any) -> dict[str, float]:
    return {"min": int(degrees.min()), "mean": float(degrees.mean()), "max": int(degrees.max())}
