"""The pictures of a search in a run directory."""

from matplotlib.figure import Figure

from ciess.data import Interactions
from ciess.errors import RunDirectoryError
from ciess.reporting.figures.search import draw_search
from ciess.reporting.figures.style import png, save_figures
from ciess.storage.storage import Storage


def search_figures(run: Storage, data: Interactions, budgets: tuple[float, ...]) -> dict[str, Figure]:
    """Pictures of the search so far by name; budgets: whose best masks are shown."""
    degrees = data.degrees()
    return draw_search(run, data.n_users, degrees, budgets)


def write_search_figures(out: str, beside: str | None = None) -> list[str]:
    """Draw what needs no data below figures/ of a run directory and return the paths.

    Args:
        out: run directory, a path or a URI.
        beside: run directory of another search, to stand beside this one in search.png.

    Raises:
        RunDirectoryError: either holds no search.
    """
    run = Storage(out)
    if not run.exists("history.parquet") or not run.exists("data.json"):
        raise RunDirectoryError(
            f"{run.root} holds no search to draw: history.parquet of `ciess search` was expected. Check the path, or "
            "start one with `ciess search DATA --out DIR`."
        )
    drawn = draw_search(run, run.read_json("data.json")["users"], beside=None if beside is None else Storage(beside))
    return save_figures(run, {name: png(figure) for name, figure in drawn.items()})
