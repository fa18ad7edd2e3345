"""Everything that can be set. Every field names its source; the command line is these models."""

from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig

__all__ = ["DataConfig", "FitConfig", "RecommenderConfig", "RetrainConfig", "SearchConfig"]
