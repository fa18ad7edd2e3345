"""Continuous input embedding size search: how many dimensions each user and item deserves under a memory budget."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciess.artifact import CompressedTable, load
    from ciess.config import RecommenderConfig
    from ciess.data import Interactions, planted, read
    from ciess.errors import CiessError
    from ciess.fit import FitRequest, FitResult
    from ciess.fit_config import FitConfig
    from ciess.retrain_run import retrain
    from ciess.search import Search
    from ciess.search_config import SearchConfig
    from ciess.search_run import run_search

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
    "CompressedTable": "artifact",
    "FitConfig": "fit_config",
    "FitRequest": "fit",
    "FitResult": "fit",
    "Interactions": "data",
    "RecommenderConfig": "config",
    "Search": "search",
    "SearchConfig": "search_config",
    "load": "artifact",
    "planted": "data",
    "read": "data",
    "retrain": "retrain_run",
    "run_search": "search_run",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Public names load when first used, so that `import ciess` stays quick."""
    if name in _HOMES:
        return getattr(import_module(f"ciess.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ciess' has no attribute {name!r}; it has {', '.join(__all__)}")
