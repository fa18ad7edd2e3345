"""`ciess retrain`: selective retraining of the search in a run directory, with its table and pictures."""

from ciess.artifact import CompressedTable, load
from ciess.candidates import Candidate, from_table
from ciess.config import DataConfig
from ciess.data import Interactions
from ciess.errors import BudgetError, RunDirectoryError
from ciess.masks import exact
from ciess.report import describe_run, write_report
from ciess.retraining import Retraining
from ciess.run_directory import check_data, holds_run
from ciess.search import Search
from ciess.search_config import RetrainConfig, SearchConfig
from ciess.search_run import environment_of, open_reference, search_figures
from ciess.storage import Storage
from ciess.training_progress import RetrainingProgress


def retrain_run(out: str, settings: RetrainConfig, data: Interactions) -> str:
    """Retrain the best masks of the search in run directory `out`; returns the text of the summary.

    Tables that are finished are kept, an interrupted training goes on. A budget that no mask keeps is named in the
    summary, and the others are served. Raises BudgetError where no budget at all is kept, RunDirectoryError for a
    folder without a search or of other data.
    """
    run = Storage(out)
    config, _ = read_config(run)
    check_data(run, data)
    missed = _retrain(run, settings, data, config, read_visited(run, config))
    written = write_report(run, search_figures(run, data, settings.sparsity))
    return "\n".join([*missed, describe_run(run), "", *(f"wrote {path}" for path in written)])


def retrain(
    data: Interactions, search: Search, sparsity: float, seed: int = 0, project: bool = False
) -> CompressedTable:
    """The compressed table of the best mask of a search at a budget: trained to convergence, chosen, refit, tested.

    search: as `run_search` returns it. Raises BudgetError where no mask keeps the budget, and RunDirectoryError for a
    search without a run directory.
    """
    if search.run is None:
        raise RunDirectoryError(
            "This search has no run directory, but retraining needs its reference and a place for tables. Run it with "
            "ciess.run_search(data, config, out=...)."
        )
    settings = RetrainConfig(sparsity=(sparsity,), seeds=(seed,), compare=(), project=project)
    _retrain(search.run, settings, data, search.config, search.visited)
    return load(search.run.path(f"tables/ciess-c{float(100 * exact(sparsity)):g}-s{seed}"))


def read_config(run: Storage) -> tuple[SearchConfig, DataConfig]:
    """Settings of the search in a run directory. Raises RunDirectoryError where there is none."""
    if not holds_run(run) or "short_fit" not in (content := run.read_yaml("config.yaml"))["config"]:
        raise RunDirectoryError(
            f"{run.root} holds no search: a config.yaml that `ciess search` wrote was expected. Check the path, or "
            "start one with `ciess search DATA --out DIR`."
        )
    return SearchConfig.model_validate(content["config"]), DataConfig.model_validate(content["data"])


def read_visited(run: Storage, config: SearchConfig) -> list[Candidate]:
    """Masks that the search has visited. Raises RunDirectoryError where there are none."""
    visited = (
        from_table(run.read_table("candidates.parquet"), config.max_size) if run.exists("candidates.parquet") else []
    )
    if not any(candidate.origin == "search" for candidate in visited):
        raise RunDirectoryError(
            f"{run.root} holds no candidates: its search has finished no iteration. At least one was expected. Go on "
            "with `ciess search ... --resume` first."
        )
    return visited


def _retrain(
    run: Storage, settings: RetrainConfig, data: Interactions, config: SearchConfig, visited: list[Candidate]
) -> list[str]:
    """Train the tables; returns a sentence for each budget that no mask keeps. Raises BudgetError if none is kept."""
    found = open_reference(data, config, run)
    with RetrainingProgress(config) as progress:
        retraining = Retraining(
            data,
            config,
            settings,
            visited,
            found,
            environment_of(data, config, found),
            run,
            progress.on_epoch,
            progress.announce,
        )
        served, missed = [], []
        for sparsity in dict.fromkeys(settings.sparsity):
            try:
                retraining.options(sparsity)
                served.append(sparsity)
            except BudgetError as error:
                missed.append(error)
        if not served:
            raise missed[0]
        for seed in settings.seeds:
            for sparsity in served:
                retraining.budget(sparsity, seed)
            retraining.full(seed)
    run.delete("progress")
    return [str(error) for error in missed]
