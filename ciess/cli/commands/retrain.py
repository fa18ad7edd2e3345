"""`ciess retrain`."""

from typing import Annotated

import tyro

from ciess.cli.options import Flat, read_noted
from ciess.config.retrain import RetrainConfig

RETRAINING = RetrainConfig()
"""What is retrained where nothing is said of it."""


def retrain(
    run: Annotated[str, tyro.conf.Positional],
    settings: Annotated[RetrainConfig, Flat] = RETRAINING,
    data: str | None = None,
) -> None:
    """Retrain the best masks of a search for each budget; test and save them beside full, equal and mixed sizes.

    Args:
        run: run directory of `ciess search`.
        settings: what to retrain.
        data: where the interactions are, if they have moved since the search; their checksum must match.
    """
    from ciess.runs.directory import read_config, read_data_path
    from ciess.runs.retrain import retrain_run
    from ciess.storage.storage import Storage

    folder = Storage(run)
    _, options = read_config(folder)
    source = read_data_path(folder) if data is None else data
    print(retrain_run(run, settings, read_noted(source, options)))
