"""The masks that stood for choice at a retraining, as cells of a table."""

from collections.abc import Sequence

import pyarrow as pa

from ciess.storage.columns import RETRAINED
from ciess.storage.storage import Storage, read_columns

MISSING = "-"
"""Cell of a value that is not there."""

CHOICE = ("target", "seed", "mask", "sparsity", "short ratio", "ratio", "quality", "chosen by", "epochs", "")
CHOICE_LEGEND = (
    "Masks that stood for choice, trained to convergence. ratio: mean quality ratio over users and items on validation "
    "(Eq. 16){by_ratio}; short ratio: the same after the short fit; quality: mean of Eq. 8 on validation{by_half}."
)
BY_RATIO = ", the largest of a target and seed is chosen"
BY_HALF = (
    "; chosen by: the same on the half of it that the search has not seen, the largest of a target and seed is chosen"
)


def choice_rows(storage: Storage) -> list[list[str]]:
    """Header and rows of cells of retrained.parquet, by rising target, then seed.

    Args:
        storage: run directory.

    Returns:
        cells, none where nothing was retrained.

    Raises:
        RunDirectoryError: a file that cannot be used.
    """
    if not storage.exists("retrained.parquet"):
        return []
    numbers = ("short_quality_ratio", "quality_ratio", "quality", "choice_quality")
    names = ("target_sparsity", "seed", "where", "sparsity", *numbers, "epochs", "selected")
    rows = read_columns(storage, "retrained.parquet", pa.schema([RETRAINED.field(name) for name in names])).to_pylist()
    halved = any(row["choice_quality"] is not None for row in rows)
    shown = numbers if halved else numbers[:-1]
    return [
        [name for name in CHOICE if halved or name != "chosen by"],
        *(
            [
                percent(row["target_sparsity"]),
                str(row["seed"]),
                row["where"],
                percent(row["sparsity"]),
                *(MISSING if row[name] is None else f"{row[name]:.4f}" for name in shown),
                str(row["epochs"]),
                "chosen" if row["selected"] else "",
            ]
            for row in sorted(rows, key=lambda row: (row["target_sparsity"], row["seed"]))
        ),
    ]


def choice_legend(choices: Sequence[Sequence[str]]) -> str:
    """What the columns of `choice_rows` mean.

    Args:
        choices: header and rows.

    Returns:
        a paragraph.
    """
    halved = bool(choices) and "chosen by" in choices[0]
    return CHOICE_LEGEND.format(by_ratio="" if halved else BY_RATIO, by_half=BY_HALF if halved else "")


def percent(share: float) -> str:
    """A share as a cell.

    Args:
        share: 0 to 1.

    Returns:
        as many digits as it has, up to eight.
    """
    return f"{100 * share:.8g} %"
