"""The commands by name, and the settings of which the defaults depend on what else is said."""

from collections.abc import Callable
from typing import Any

from ciess.cli.commands.bench import bench
from ciess.cli.commands.data import data
from ciess.cli.commands.doctor import doctor
from ciess.cli.commands.figures import figures
from ciess.cli.commands.fit import fit
from ciess.cli.commands.recommend import recommend
from ciess.cli.commands.retrain import retrain
from ciess.cli.commands.search import search
from ciess.cli.commands.status import status
from ciess.cli.options import Said
from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.config.search import SearchConfig

COMMANDS: dict[str, Callable[..., None]] = {
    "data": data,
    "fit": fit,
    "search": search,
    "retrain": retrain,
    "status": status,
    "figures": figures,
    "recommend": recommend,
    "bench": bench,
    "doctor": doctor,
}
"""Name -> function; its parameters are the options."""

CONFIGS: dict[str, Callable[[Said], Any]] = {
    "fit": lambda said: FitConfig.model_validate({"backbone": said.backbone, **said.methods}),
    "search": lambda said: SearchConfig.model_validate(
        {"backbone": said.backbone, "short_fit": said.short_fit, **said.search_preset, **said.budgeted}
    ),
    "bench": lambda said: RecommenderConfig.model_validate({"backbone": said.backbone}),
}
"""Command -> default of its `config`, so that --help and the defaults are the ones tuned for what is said."""
