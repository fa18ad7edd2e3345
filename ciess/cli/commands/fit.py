"""`ciess fit`."""

from typing import Annotated

from ciess.cli.options import READING, DataPath, Flat, read_noted
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig


def fit(
    path: DataPath,
    out: str,
    config: Annotated[FitConfig, Flat],
    options: Annotated[DataConfig, Flat] = READING,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Train, test and save tables of fixed sizes (full, equal, mixed) or of learned masks (pep, esapn, optembed).

    Args:
        path: file, folder or zip archive with interactions; `planted` is a small embedded set.
        out: run directory, a path or a URI such as s3://bucket/run.
        config: what to train.
        options: how to read the data.
        resume: go on with the run in --out: finished tables are kept, an interrupted one goes on.
        overwrite: delete the run in --out first.
    """
    from ciess.runs.fit import fit_tables

    print(fit_tables(read_noted(path, options), config, options, out, resume=resume, overwrite=overwrite))
