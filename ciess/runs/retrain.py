"""`ciess retrain`: selective retraining of the search in a run directory, with its table and pictures."""

from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.errors import BudgetError, RunDirectoryError
from ciess.masks.budget import exact
from ciess.reporting.report import describe_run, write_report
from ciess.reporting.summaries import read_results
from ciess.retraining.retraining import Retraining
from ciess.runs.directory import check_data, read_config, read_visited
from ciess.runs.figures import search_figures
from ciess.runs.progress import TrainingProgress
from ciess.runs.search import open_reference
from ciess.search.candidates import Candidate
from ciess.search.recorder import search_fingerprint
from ciess.search.reference import environment_of
from ciess.search.search import Search
from ciess.storage.columns import CHOSEN
from ciess.storage.storage import Storage
from ciess.tables.table import CompressedTable, load


def retrain_run(out: str, settings: RetrainConfig, data: Interactions) -> str:
    """Retrain the best masks of the search in run directory `out`; returns the text of the summary.

    Tables that are finished are kept, an interrupted training goes on. A budget that no mask keeps is named in the
    summary, and the others are served.

    Raises:
        BudgetError: no budget at all is kept.
        RunDirectoryError: a folder without a search or of other data.
        DataError: data without test pairs.
        FitError: a training breaks down.
    """
    run = Storage(out)
    config, _ = read_config(run)
    check_data(run, data)
    missed = _retrain(run, settings, data, config, read_visited(run, config))
    written = write_report(run, search_figures(run, data, settings.sparsity or config.budgets))
    rows = read_results(run).to_pylist()
    served = sorted({row["candidate"] for row in rows if row["role"] == CHOSEN})
    use = [f"use a table with: ciess recommend {run.location}/tables/{name} --user ID -k 10" for name in served[:1]]
    return "\n".join([*missed, describe_run(run), "", *(f"wrote {path}" for path in written), *use])


def retrain(
    data: Interactions, search: Search, sparsity: float, seed: int = 0, project: bool = False
) -> CompressedTable:
    """The compressed table of the best mask of a search at a budget: trained to convergence, chosen, refit, tested.

    The table is saved in the search's run directory, too (section 2.3, line 17 of Algorithm 1).

    Args:
        data: what the search was run on.
        search: as `run_search` returns it.
        sparsity: the budget, share of the table that is removed.
        seed: of the trainings.
        project: where no mask keeps the budget, project the best one to it.

    Returns:
        the table.

    Raises:
        BudgetError: no mask keeps the budget.
        RunDirectoryError: a search without a run directory or of other data.
        DataError: data without test pairs.
        FitError: a training breaks down.
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


def _retrain(
    run: Storage, settings: RetrainConfig, data: Interactions, config: SearchConfig, visited: list[Candidate]
) -> list[str]:
    """Train the tables; returns a sentence for each budget that no mask keeps. Raises BudgetError if none is kept."""
    data.require("test")
    reference = open_reference(data, config, run)
    with TrainingProgress(every=config.training.evaluate_every) as progress:
        retraining = Retraining(
            data,
            config,
            settings,
            visited,
            reference,
            environment_of(data, config, reference, half=1),
            run,
            search_fingerprint(data, config)[:12],
            progress.on_epoch,
            progress.announce,
        )
        served: list[float] = []
        missed: dict[float, BudgetError] = {}
        for sparsity in dict.fromkeys(settings.sparsity or config.budgets):
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
