"""From what a user names as data to interactions: a path, or the embedded planted set."""

from __future__ import annotations

from pathlib import Path

from ciess.config.data import DataConfig
from ciess.data.interactions import Interactions
from ciess.data.planted import planted
from ciess.data.readers import read
from ciess.errors import InputError

PLANTED = "planted"
"""Stands for the embedded set, unless there is a file of that name."""


def read_source(source: str, options: DataConfig) -> Interactions:
    """The interactions that a command is given.

    Args:
        source: path or URI as `ciess.read` takes it, or `planted`.
        options: how to read it.

    Returns:
        the interactions.

    Raises:
        InputError: the planted set is given a reading option other than the split seed.
        DataError: as `ciess.read` raises it.
    """
    if source != PLANTED or Path(source).exists():
        return read(source, **options.model_dump())
    if options.model_dump(exclude={"split_seed"}) != DataConfig().model_dump(exclude={"split_seed"}):
        raise InputError(
            "The embedded planted data takes no reading options but --split-seed; some were given. Leave them out."
        )
    return planted(split_seed=options.split_seed).data
