"""What a parser hands to the reader: coded rows of one input, in file order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ciess.data.ids import CodedIds
from ciess.errors import DataError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Columns:
    """Names of the columns that a file with a header is asked for; rating None where it is not needed."""

    user: str
    item: str
    rating: str | None


@dataclass(frozen=True, eq=False)
class Rows:
    """Interactions as they stand in the input, before anything is filtered or merged.

    Attributes:
        users: coded users, one a row.
        items: coded items, one a row.
        ratings: float64[rows], NaN where the input has none; None where they were not asked for.
        parts: int8[rows], position in SPLITS; None where the input is not split.
        notes: what parsing assumed.
    """

    users: CodedIds
    items: CodedIds
    ratings: npt.NDArray[np.float64] | None
    parts: npt.NDArray[np.int8] | None
    notes: tuple[str, ...] = ()


def require_columns(found: list[str], wanted: list[str], source: str) -> None:
    """Check that each wanted column is in the input exactly once.

    Raises:
        DataError: a column is absent or comes twice; the columns found are listed.
    """
    for name in wanted:
        if found.count(name) != 1:
            how_often = "has no column" if name not in found else "has more than one column"
            raise DataError(
                f"{source} {how_often} {name!r}. The columns found are: {', '.join(found)}. Expected one column each "
                f"of {', '.join(wanted)}. Name them with user_column, item_column and rating_column."
            )
