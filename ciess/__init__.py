"""Continuous input embedding size search: how many dimensions each user and item deserves under a memory budget."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciess.config import DataConfig, FitConfig, RecommenderConfig, RetrainConfig, SearchConfig
    from ciess.data import Interactions, planted, read
    from ciess.errors import CiessError
    from ciess.runs.fit import fit_tables
    from ciess.runs.retrain import retrain
    from ciess.runs.search import run_search
    from ciess.search.environment import Environment
    from ciess.search.proposals import Outcome, Proposal
    from ciess.search.search import Search
    from ciess.tables.table import CompressedTable, load
    from ciess.training.fit import FitResult, fit
    from ciess.training.loop import FitRequest

__all__ = [
    "CiessError",
    "CompressedTable",
    "DataConfig",
    "Environment",
    "FitConfig",
    "FitRequest",
    "FitResult",
    "Interactions",
    "Outcome",
    "Proposal",
    "RecommenderConfig",
    "RetrainConfig",
    "Search",
    "SearchConfig",
    "fit",
    "fit_tables",
    "load",
    "planted",
    "read",
    "retrain",
    "run_search",
]

_HOMES = {
    "CiessError": "errors",
    "CompressedTable": "tables.table",
    "DataConfig": "config",
    "Environment": "search.environment",
    "FitConfig": "config",
    "FitRequest": "training.loop",
    "FitResult": "training.fit",
    "Interactions": "data",
    "Outcome": "search.proposals",
    "Proposal": "search.proposals",
    "RecommenderConfig": "config",
    "RetrainConfig": "config",
    "Search": "search.search",
    "SearchConfig": "config",
    "fit": "training.fit",
    "fit_tables": "runs.fit",
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
