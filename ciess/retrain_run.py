"""`ciess retrain`: selective retraining of the search in a run directory, with its table and pictures."""

from pathlib import Path

import pyarrow as pa

from ciess.artifact import CompressedTable, load
from ciess.candidates import Candidate, from_table
from ciess.config import DataConfig
from ciess.data import Interactions
from ciess.errors import BudgetError, DataError, RunDirectoryError
from ciess.masks import exact
from ciess.report import describe_run, write_report
from ciess.retraining import Retraining
from ciess.run_directory import check_data, holds_run
from ciess.search import Search
from ciess.search_config import RetrainConfig, SearchConfig
from ciess.search_recording import search_fingerprint
from ciess.search_run import environment_of, open_reference, search_figures
from ciess.storage import Storage
from ciess.training_progress import RetrainingProgress


def retrain_run(out: str, settings: RetrainConfig, data: Interactions) -> str:
    """Retrain the best masks of the search in run directory `out`; returns the text of the summary.

    Tables that are finished are kept, an interrupted training goes on. A budget that no mask keeps is named in the
    summary, and the others are served. Raises BudgetError where no budget at all is kept, RunDirectoryError for a
    folder without a search or of other data, DataError for data without test pairs, FitError where a training breaks
    down.
    """
    run = Storage(out)
    config, _ = read_config(run)
    check_data(run, data)
    missed = _retrain(run, settings, data, config, read_visited(run, config))
    written = write_report(run, search_figures(run, data, settings.sparsity))
    served = [name for name in run.child("tables").names() if name.startswith("ciess-") and "-searched-" not in name]
    use = [f"use a table with: ciess recommend {run.location}/tables/{name} --user ID -k 10" for name in served[:1]]
    return "\n".join([*missed, describe_run(run), "", *(f"wrote {path}" for path in written), *use])


def retrain(
    data: Interactions, search: Search, sparsity: float, seed: int = 0, project: bool = False
) -> CompressedTable:
    """The compressed table of the best mask of a search at a budget: trained to convergence, chosen, refit, tested.

    search: as `run_search` returns it; data: what it was run on. The table is saved in its run directory, too.
    project: where no mask keeps the budget, project the best one to it. Raises BudgetError where no mask keeps the
    budget, RunDirectoryError for a search without a run directory or of other data, DataError for data without test
    pairs, FitError where a training breaks down.
    """
    if search.run is None:
        raise RunDirectoryError(
            "This search has no run directory, but retraining needs its reference and a place for tables. Run it with "
            "ciess.run_search(data, config, out=...)."
        )
    check_data(search.run, data)
    settings = RetrainConfig(sparsity=(sparsity,), seeds=(seed,), compare=(), project=project)
    _retrain(search.run, settings, data, search.config, search.visited)
    return load(search.run.child("tables", f"ciess-c{float(100 * exact(sparsity)):g}-s{seed}"))


def read_config(run: Storage) -> tuple[SearchConfig, DataConfig]:
    """Settings of the search in a run directory. Raises RunDirectoryError where there is none."""
    if not holds_run(run) or "short_fit" not in (content := run.read_yaml("config.yaml"))["config"]:
        raise RunDirectoryError(
            f"{run.root} holds no search: a config.yaml that `ciess search` wrote was expected. Check the path, or "
            "start one with `ciess search DATA --out DIR`."
        )
    return SearchConfig.model_validate(content["config"]), DataConfig.model_validate(content["data"])


def read_source(run: Storage) -> str:
    """Where the interactions of the search are. Raises RunDirectoryError where they have moved."""
    source = str(run.read_json("data.json")["source"])
    if source != "planted" and "://" not in source and not Path(source).exists():
        raise RunDirectoryError(
            f"{run.root} was made from {source}, which is no longer there. The same interactions were expected: give "
            "their new place with --data."
        )
    return source


def read_visited(run: Storage, config: SearchConfig) -> list[Candidate]:
    """Masks that the search has visited. Raises RunDirectoryError where there are none, or none that can be read."""
    visited: list[Candidate] = []
    if run.exists("candidates.parquet"):
        try:
            visited = from_table(run.read_table("candidates.parquet"), config.max_size)
        except (pa.ArrowException, BudgetError, ValueError, KeyError, OSError) as error:
            raise RunDirectoryError(
                f"{run.path('candidates.parquet')} cannot be read ({error}); the masks that `ciess search` visited "
                "were expected. Restore the file, or go on with the search by --resume, which writes it anew."
            ) from error
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
    if not len(data.test):
        raise DataError(
            f"{data.source} has no test pairs, on which each table is tested once; one or more were expected. Give "
            "data with more interactions a user."
        )
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
            search_fingerprint(data, config)[:12],
            progress.on_epoch,
            progress.announce,
        )
        served: list[float] = []
        missed: dict[float, BudgetError] = {}
        for sparsity in dict.fromkeys(settings.sparsity):
            try:
                retraining.options(sparsity)
                served.append(sparsity)
            except BudgetError as error:
                missed[sparsity] = error
        if not served:
            # What keeps not even the smallest sparsity keeps none.
            raise missed[min(missed)]
        for seed in dict.fromkeys(settings.seeds):
            for sparsity in served:
                retraining.budget(sparsity, seed)
            retraining.full(seed)
    run.delete("progress")
    return [str(error) for error in missed.values()]
