"""`ciess status`."""

from typing import Annotated

import tyro


def status(run: Annotated[str, tyro.conf.Positional]) -> None:
    """How far a run is, and how long it still takes.

    Args:
        run: run directory of `ciess search`.
    """
    from ciess.runs.status import describe_status

    print(describe_status(run))
