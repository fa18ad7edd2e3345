"""`ciess figures`."""

from typing import Annotated

import tyro


def figures(run: Annotated[str, tyro.conf.Positional], beside: str | None = None) -> None:
    """Draw the search in a run directory as it stands: figures/search.png, iterations.png, visited.png.

    Args:
        run: run directory of `ciess search`.
        beside: another one, whose episodes stand beside these in search.png, such as a search without random walk.
    """
    from ciess.runs.figures import write_search_figures

    print("\n".join(f"wrote {path}" for path in write_search_figures(run, beside)))
