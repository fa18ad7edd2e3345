"""A search in this process: the loop around ask and tell, and its run directory."""

import functools
import sys
from collections.abc import Mapping
from typing import Any

from ciess import masks
from ciess.config.data import DataConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.halving import check_halves
from ciess.devices import resolve_device
from ciess.errors import RunDirectoryError
from ciess.reporting.figures.style import png, save_figures
from ciess.runs.directory import open_run
from ciess.runs.figures import search_figures
from ciess.runs.progress import SearchProgress, TrainingProgress
from ciess.search.recorder import Recorder, search_fingerprint
from ciess.search.reference import Reference, environment_of, read_lent_reference, train_reference
from ciess.search.rules import search_rules
from ciess.search.search import Search
from ciess.search.short_fit import short_fit, short_fits, stack, starting_weights
from ciess.search.short_fit_ranking import describe_ranking
from ciess.search.verdict import describe_verdict, verdict
from ciess.storage.checkpoint import load_checkpoint
from ciess.storage.storage import Storage

WITHOUT_HALVES = "Give data with more interactions, or search and choose on all of it by --no-halves."
"""What to do about a validation part that is too small to be cut."""


def run_search(
    data: Interactions,
    config: SearchConfig,
    out: str,
    options: DataConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reference_from: str | None = None,
) -> Search:
    """Search in this process and write a run directory (Algorithm 1).

    Args:
        data: interactions with a validation part.
        config: how to search.
        out: run directory, a path or a URI.
        options: how the data was read, for the record.
        resume: go on with the run in `out`; episodes or fits may then be more.
        overwrite: delete the run in `out` first.
        reference_from: run directory or folder of a reference of the same data, backbone settings and seed.

    Returns:
        the finished search.

    Raises:
        RunDirectoryError: as `fit_tables` raises it, and for a reference_from that holds no such reference.
        BudgetError: a budget cannot be met.
        InputError: a device is not there.
        DataError: data without validation pairs; all of these before anything is written.
        FitError: a fit breaks down.
    """
    resolve_device(config.device)
    data.require("valid")
    cut = check_halves(data.valid, data.n_users, WITHOUT_HALVES) if config.halves else None
    for budget in config.budgets:
        masks.budget(data.n, config.max_size, budget, masks.size_bounds(config, data.n_users, data.n_items))
    run = Storage(out)
    fingerprint = search_fingerprint(data, config)

    def episodes(before: int, now: int) -> int:
        if now < before:
            _check_length(run, load_checkpoint(run.child("checkpoint"), fingerprint)[0], now)
        return now

    lent: dict[str, bytes] = {}
    if reference_from is not None and (overwrite or not run.exists("reference/metrics.json")):
        # Read before anything is written: the run that lends it may be the one that is overwritten.
        lent = read_lent_reference(data, config.started(), config.seed, Storage(reference_from))
    open_run(
        run,
        data,
        config,
        options or DataConfig(),
        resume,
        overwrite,
        may_change={"episodes": episodes, "fits": lambda _, now: now},
    )
    for name, content in lent.items():
        run.child("reference").write_bytes(name, content)
    if cut is not None:
        print(f"validation: {cut}", file=sys.stderr)
    reference = open_reference(data, config, run)
    search = Search(config, environment_of(data, config, reference), search_rules(data, config, run))
    recorder = Recorder(search, run, fingerprint)
    for note in recorder.restore():
        print(note, file=sys.stderr)
    if search.fits_done:
        print(f"Going on after {search.fits_done} of {search.fits} short fits.", file=sys.stderr)
    print(f"short fit: preset {config.short_fit.preset}; {describe_ranking(config)}", file=sys.stderr)
    start_from = starting_weights(config, reference.weights)
    try:
        with SearchProgress(search) as progress:
            while proposals := search.ask():
                if stack(config, proposals):
                    outcomes = short_fits(data, config, proposals, start_from)
                else:
                    outcomes = (short_fit(data, config, proposal, start_from) for proposal in proposals)
                for outcome in outcomes:
                    progress.told(recorder.tell(outcome))
    finally:
        recorder.finish()
    save_figures(run, {name: png(figure) for name, figure in search_figures(run, data, config.budgets).items()})
    if config.sparsity:
        search.verdicts = [
            verdict(data, config, search.environment, search.visited, best[0], budget, start_from)
            for budget in config.budgets
            if (best := search.best(budget))
        ]
        run.write_json("verdict.json", [found.described() for found in search.verdicts])
    return search


def open_reference(data: Interactions, config: SearchConfig, run: Storage) -> Reference:
    """The run's reference: as it is there, or trained.

    Raises:
        RunDirectoryError: the run holds one of other data, backbone settings or seed.
    """
    folder = run.child("reference")
    title = f"reference: {config.backbone} at {config.max_size} dimensions, trained until validation stops to improve"
    if folder.exists("metrics.json"):
        reference = train_reference(data, config.started(), config.seed, folder)
    else:
        with TrainingProgress(title, config.training.evaluate_every) as progress:
            on_epoch = functools.partial(progress.on_epoch, "reference", "")
            reference = train_reference(data, config.started(), config.seed, folder, on_epoch)
    nothing = reference.quality == 0
    zeros = {"users": int(nothing[: data.n_users].sum()), "items": int(nothing[data.n_users :].sum())}
    ratio = "1" if config.zero_reference == "one" else "0 or 1"
    print(
        f"reference: validation quality {reference.metrics['quality']:.4f}; it scores 0 for {zeros['users']:,} of "
        f"{data.n_users:,} users and {zeros['items']:,} of {data.n_items:,} items, whose "
        f"quality ratio (Eq. 7) is {ratio}",
        file=sys.stderr,
    )
    return reference


def describe_search(search: Search) -> str:
    """What a finished search found for each of its budgets, and what to do next."""
    assert search.run is not None
    if search.config.sparsity:
        budgets = " ".join(f"{found.sparsity:g}" for found in search.verdicts)
        return "\n".join(
            [
                f"{len(search.visited)} masks visited.",
                *(line for found in search.verdicts for line in describe_verdict(found, search.config)),
                "",
                f"figures are in {search.run.path('figures')}",
                f"train the best masks, test and save with: ciess retrain {search.run.location} --sparsity {budgets}",
            ]
        )
    lines = [f"{len(search.visited)} masks visited. The best ones, by the mean quality ratio of their short fits:"]
    for budget in search.config.budgets:
        best = search.candidates(budget)
        if not best:
            reached = max((row["sparsity"] for row in search.history.to_pylist()), default=0.0)
            lines.append(f"{100 * budget:g} %: none; the sparsest mask visited has {100 * reached:.1f} %")
        for candidate in best:
            lines.append(
                f"{100 * budget:g} %: {candidate.where}, sparsity {100 * candidate.sparsity:.2f} %, ratio "
                f"{candidate.quality_ratio:.4f}, quality {candidate.quality:.4f}"
            )
    equal = [candidate for candidate in search.visited if candidate.origin == "equal"]
    lines += ["Equal sizes, for comparison:"] if equal else []
    for candidate in equal:
        lines.append(
            f"{candidate.where}, sparsity {100 * candidate.sparsity:.2f} %, ratio {candidate.quality_ratio:.4f}, "
            f"quality {candidate.quality:.4f}"
        )
    lines += ["", f"figures are in {search.run.path('figures')}"]
    met = [f"{budget:g}" for budget in search.config.budgets if search.candidates(budget)]
    missed = [f"{budget:g}" for budget in search.config.budgets if not search.candidates(budget)]
    if met:
        lines.append(f"retrain the best masks with: ciess retrain {search.run.location} --sparsity {' '.join(met)}")
    if missed:
        lines.append(
            f"for {' '.join(missed)}: go on with more --episodes and --resume, search with a larger --memory-weight or "
            f"with --budget-mode target --targets {' '.join(missed)}, or retrain with --project"
        )
    return "\n".join(lines)


def _check_length(run: Storage, state: Mapping[str, Any] | None, episodes: int) -> None:
    """Raise RunDirectoryError where a state_dict is of more episodes than are asked for now."""
    values = state["values"] if state is not None else {"rows": [], "told": []}
    begun = [row["episode"] for row in values["rows"]] + [episode for _, episode, *_ in values["told"]]
    reached = max(begun, default=0)
    if reached > episodes:
        raise RunDirectoryError(
            f"{run.root} holds a search that has reached episode {reached}, but --episodes is {episodes}. As many or "
            "more were expected, as a search is only ever made longer. Raise --episodes, or choose another --out."
        )
