"""A run of `ciess fit`: the run directory around the training of every table asked for."""

import sys
from fractions import Fraction
from typing import Any

from matplotlib.figure import Figure

from ciess import masks
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.devices import resolve_device
from ciess.methods import METHODS
from ciess.methods.learned_masks import LearnedMasks
from ciess.reporting.figures.learned import draw_learned
from ciess.reporting.report import describe_run, write_report
from ciess.runs.directory import Merge, holds_run, open_run
from ciess.runs.progress import TrainingProgress
from ciess.storage.storage import Storage
from ciess.tables.protocol import train_table
from ciess.tables.references import References
from ciess.tables.spec import TableSpec

WORK_LIST = ("method", "sparsity", "seeds")
"""Keys that may change when a run is resumed: they add tables, and change none."""


def _grow(before: list[Any], now: list[Any]) -> list[Any]:
    """What the run was asked for before stays written."""
    return list(dict.fromkeys([*before, *now]))


def fit_tables(
    data: Interactions, config: FitConfig, options: DataConfig, out: str, resume: bool = False, overwrite: bool = False
) -> str:
    """Train, test and save every table of the config.

    Args:
        data: interactions with all three parts.
        config: methods, sparsities, seeds, backbone and training.
        options: how the data was read, for the record.
        out: run directory, a path or a URI.
        resume: go on with the run in `out`; methods, sparsities and seeds may be more than before.
        overwrite: delete the run in `out` first.

    Returns:
        the text of the summary.

    Raises:
        RunDirectoryError: `out` holds a run and neither resume nor overwrite is given, or a resumed run was made with
            other settings or data.
        BudgetError: a sparsity cannot be met.
        InputError: a device is not there, or settings that a method cannot use.
        DataError: data without validation or test pairs; all of these before anything is trained or written.
        FitError: a training breaks down.
    """
    budgets = [masks.exact(c) for c in dict.fromkeys(config.sparsity)]
    run = Storage(out)
    steps = planned(data, config, run)
    resolve_device(config.device)
    data.require("valid", "test")
    may_change = dict.fromkeys(WORK_LIST, _grow) | _settings_of_others(run, config)
    open_run(run, data, config, options, resume, overwrite, may_change)
    count, number = sum(1 if isinstance(step, TableSpec) else step.count(budgets) for step in steps), 0
    references = {
        seed: References(config, seed, run.child("progress", f"reference-s{seed}"), keeps_progress=True)
        for seed in config.seeds
    }
    for step in steps:
        for spec in [step] if isinstance(step, TableSpec) else _learn(step, budgets):
            number += 1
            label = f"[{number}/{count}]"
            if run.exists(f"tables/{spec.name}/card.json"):
                print(f"{label} {spec.name} is done already", file=sys.stderr)
                continue
            with TrainingProgress(f"{label} {config.backbone} {spec.name}", config.training.evaluate_every) as progress:
                reference = references[spec.seed]
                # A full table is trained as a reference is: once for both.
                folder = reference.progress if spec.method == "full" and config.start != "fresh" else None
                train_table(data, spec, config, run, config.refit, progress.on_epoch, folder, reference=reference)
    for reference in references.values():
        reference.folder.delete()
    if not run.child("progress").names():
        run.delete("progress")
    written = write_report(run, _pictures(run, data, config))
    return "\n".join([describe_run(run), "", *(f"wrote {path}" for path in written)])


def planned(data: Interactions, config: FitConfig, run: Storage) -> list[TableSpec | LearnedMasks]:
    """The tables to train in order, and in place of those of a learned method the stage that finds their masks."""
    budgets = [masks.exact(c) for c in dict.fromkeys(config.sparsity)]
    for c in budgets:
        masks.budget(data.n, config.max_size, c, masks.size_bounds(config, data.n_users, data.n_items))
    found: dict[str, TableSpec | LearnedMasks] = {}
    for method in config.method:
        METHODS[method].check(config)
        METHODS[method].check_data(config, data)
        for seed in config.seeds:
            if METHODS[method].learned:
                folder = run.child("learned", f"{method}-s{seed}")
                found.setdefault(f"{method}-s{seed}", LearnedMasks(method, data, config, seed, folder))
                continue
            for spec in METHODS[method].compress(data, config, budgets, seed):
                found.setdefault(spec.name, spec)
    return list(found.values())


def _learn(step: LearnedMasks, budgets: list[Fraction]) -> list[TableSpec]:
    if step.known(budgets):
        return step.learn(budgets)
    with TrainingProgress(f"{step.config.backbone} {step.name}: finding masks") as progress:
        tables = step.learn(budgets, progress.on_row)
        for table in tables:
            progress.say(f"{table.title}: sparsity {100 * float(masks.sparsity(table.mask)):.2f} %")
    return tables


def _settings_of_others(run: Storage, config: FitConfig) -> dict[str, Merge]:
    """Settings of learned methods of which this sitting, or all before, make no table may differ: theirs stand."""
    if not holds_run(run):
        return {}
    before = run.read_yaml("config.yaml")["config"].get("method", [])
    learned = [method for method in METHODS if METHODS[method].learned and method in type(config).model_fields]
    kept = {method: _keep for method in learned if method not in config.method}
    return kept | {method: _take for method in learned if method in config.method and method not in before}


def _keep(before: Any, now: Any) -> Any:
    return before


def _take(before: Any, now: Any) -> Any:
    return now


def _pictures(run: Storage, data: Interactions, config: FitConfig) -> dict[str, Figure]:
    """Of every learned method in the run, those of earlier sittings included."""
    degrees = data.degrees()
    drawn: dict[str, Figure] = {}
    for name in run.child("learned").names():
        method, _, seed = name.rpartition("-s")
        step = LearnedMasks(method, data, config, int(seed), run.child("learned", name))
        if step.ended:
            found = [(table.title, table.mask, table.target_sparsity) for table in step.tables()]
            drawn |= draw_learned(step.name, step.history(), found, data.n_users, degrees)
    return drawn
