"""Continuous input embedding size search: how many dimensions each user and item deserves under a memory budget."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciess.config.fit import FitConfig
    from ciess.config.recommender import RecommenderConfig
    from ciess.config.search import SearchConfig
    from ciess.data import Interactions, planted, read
    from ciess.errors import CiessError
    from ciess.runs.retrain import retrain
    from ciess.runs.search import run_search
    from ciess.search.search import Search
    from ciess.tables.table import CompressedTable, load
    from ciess.training.fit import FitResult
    from ciess.training.loop import FitRequest

__all__ = [
    "CiessError",
    "CompressedTable",
    "FitConfig",
    "FitRequest",
    "FitResult",
    "Interactions",
    "RecommenderConfig",
    "Search",
    "SearchConfig",
    "load",
    "planted",
    "read",
    "retrain",
    "run_search",
]

_HOMES = {
    "CiessError": "errors",
    "CompressedTable": "tables.table",
    "FitConfig": "config.fit",
    "FitRequest": "training.loop",
    "FitResult": "training.fit",
    "Interactions": "data",
    "RecommenderConfig": "config.recommender",
    "Search": "search.search",
    "SearchConfig": "config.search",
    "load": "tables.table",
    "planted": "data",
    "read": "data",
    "retrain": "runs.retrain",
    "run_search": "runs.search",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Public names load when first used, so that `import ciess` stays quick."""
    if name in _HOMES:
        return getattr(import_module(f"ciess.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ciess' has no attribute {name!r}; it has {', '.join(__all__)}")
