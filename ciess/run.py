"""A run of `ciess fit`: the run directory around the training of every table asked for."""

import sys
from typing import Any

from ciess import masks
from ciess.config import DataConfig
from ciess.data import Interactions
from ciess.errors import DataError
from ciess.fit_config import FitConfig
from ciess.methods import METHODS, Compressed
from ciess.prepared import resolve_device
from ciess.protocol import train_table
from ciess.report import describe_run, write_report
from ciess.run_directory import open_run
from ciess.storage import Storage
from ciess.training_progress import TrainingProgress

WORK_LIST = ("method", "sparsity", "seeds")
"""Keys that may change when a run is resumed: they add tables, and change none."""


def _grow(before: list[Any], now: list[Any]) -> list[Any]:
    """What the run was asked for before stays written."""
    return list(dict.fromkeys([*before, *now]))


def fit_tables(
    data: Interactions, config: FitConfig, options: DataConfig, out: str, resume: bool = False, overwrite: bool = False
) -> str:
    """Train, test and save every table of the config; returns the text of the summary.

    Raises RunDirectoryError where `out` holds a run and neither resume nor overwrite is given, or where a resumed run
    was made with other settings or data; BudgetError for a sparsity that cannot be met, InputError for a device that
    is not there and DataError for data without validation or test pairs, before anything is trained or written.
    """
    tables = planned(data, config)
    resolve_device(config.device)
    if not (len(data.valid) and len(data.test)):
        raise DataError(
            f"{data.source} has {len(data.valid):,} validation and {len(data.test):,} test pairs, but one or more of "
            "each were expected. Give data with more interactions a user."
        )
    run = Storage(out)
    open_run(run, data, config, options, resume, overwrite, may_change=dict.fromkeys(WORK_LIST, _grow))
    for number, compressed in enumerate(tables, start=1):
        if run.exists(f"tables/{compressed.name}/card.json"):
            print(f"[{number}/{len(tables)}] {compressed.name} is done already", file=sys.stderr)
            continue
        with TrainingProgress(f"[{number}/{len(tables)}] {config.backbone} {compressed.name}", config) as progress:
            train_table(data, compressed, config, run, config.refit, progress.on_epoch)
    if not run.child("progress").names():
        run.delete("progress")
    written = write_report(run)
    return "\n".join([describe_run(run), "", *(f"wrote {path}" for path in written)])


def planned(data: Interactions, config: FitConfig) -> list[Compressed]:
    """The tables to train, in order."""
    budgets = [masks.exact(c) for c in dict.fromkeys(config.sparsity)]
    for c in budgets:
        masks.budget(data.n, config.max_size, c)
    found: dict[str, Compressed] = {}
    for method in config.method:
        for seed in config.seeds:
            for compressed in METHODS[method].compress(data, config, budgets, seed):
                found.setdefault(compressed.name, compressed)
    return list(found.values())
