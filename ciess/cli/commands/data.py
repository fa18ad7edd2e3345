"""`ciess data`."""

from typing import Annotated

from ciess.cli.options import READING, DataPath, Flat, read_noted
from ciess.config.data import DataConfig


def data(path: DataPath, options: Annotated[DataConfig, Flat] = READING) -> None:
    """Counts, degrees and density of a data set, beside the published counts where it is known.

    Args:
        path: file, folder or zip archive with interactions; `planted` is a small embedded set.
        options: how to read it.
    """
    from ciess.data import describe

    print(describe(read_noted(path, options)))
