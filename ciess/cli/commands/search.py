"""`ciess search`."""

from typing import Annotated

from ciess.cli.options import READING, DataPath, Flat, read_noted
from ciess.config.data import DataConfig
from ciess.config.search import SearchConfig


def search(
    path: DataPath,
    out: str,
    config: Annotated[SearchConfig, Flat],
    options: Annotated[DataConfig, Flat] = READING,
    resume: bool = False,
    overwrite: bool = False,
    reference_from: str | None = None,
) -> None:
    """Search the embedding size of every user and item.

    Args:
        path: file, folder or zip archive with interactions; `planted` is a small embedded set.
        out: run directory, a path or a URI such as s3://bucket/run.
        config: how to search.
        options: how to read the data.
        resume: go on with the search in --out; it ends as an undisturbed one. --episodes may be more than before.
        overwrite: delete the run in --out first.
        reference_from: run directory whose finished reference is used, instead of training one.
    """
    from ciess.runs.search import describe_search, run_search

    found = run_search(read_noted(path, options), config, out, options, resume, overwrite, reference_from)
    print(describe_search(found))
