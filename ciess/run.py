"""A run of `ciess fit`: the run directory around the training of every table asked for."""

import sys
from typing import Any

import yaml
from tqdm import tqdm

from ciess import masks
from ciess.checkpoint import EpochRecord
from ciess.config import DataConfig, FitConfig
from ciess.data import Interactions
from ciess.errors import DataError, RunDirectoryError
from ciess.methods import METHODS, Compressed
from ciess.prepared import resolve_device
from ciess.provenance import git_revision, kernels, machine, versions
from ciess.report import describe_run, write_report
from ciess.retraining import train_table
from ciess.storage import Storage

WORK_LIST = ("method", "sparsity", "seeds")
"""Keys that may change when a run is resumed: they add tables, and change none."""


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
    open_run(run, data, config, options, resume=resume, overwrite=overwrite)
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
            for compressed in METHODS[method](data, config, budgets, seed):
                found.setdefault(compressed.name, compressed)
    return list(found.values())


def open_run(
    run: Storage, data: Interactions, config: FitConfig, options: DataConfig, resume: bool, overwrite: bool
) -> None:
    """Make the run directory, or check that it is the same run."""
    if resume and overwrite:
        raise RunDirectoryError(
            f"Found both --resume and --overwrite for {run.root}. At most one was expected: the one goes on with the "
            "run, the other deletes it. Choose one."
        )
    content = resolved(config, options)
    if _holds_run(run):
        if overwrite:
            run.delete()
        elif not resume:
            raise RunDirectoryError(
                f"{run.root} already holds a run. An empty or new folder was expected. Choose another --out, go on "
                "with that run by --resume, or delete it by --overwrite."
            )
        else:
            _check_same(run, data, content)
            # The work list grows: what the run was asked for before stays written.
            before = run.read_yaml("config.yaml")["config"]
            for key in WORK_LIST:
                content["config"][key] = list(dict.fromkeys([*before[key], *content["config"][key]]))
    elif resume:
        raise RunDirectoryError(
            f"{run.root} holds no run to resume: there is no config.yaml of one. Check --out, or leave --resume "
            "out to start one."
        )
    elif names := run.names():
        raise RunDirectoryError(
            f"{run.root} holds files that are not a run of ciess: {', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}. An empty or new folder was expected. Choose another --out."
        )
    made_with = {"versions": versions(), "git_revision": git_revision(), "machine": machine(), "kernels": kernels()}
    run.write_yaml("config.yaml", content | {"made_with": made_with})
    counts = data.counts()
    run.write_json(
        "data.json",
        {"name": data.name, "split_seed": data.split_seed, "sha256": data.sha256, **counts, "notes": list(data.notes)},
    )


def resolved(config: FitConfig, options: DataConfig) -> dict[str, Any]:
    """All settings as plain values."""
    return {"config": config.model_dump(mode="json"), "data": options.model_dump(mode="json")}


def _holds_run(run: Storage) -> bool:
    """Whether there is the config.yaml of a run; one that another program wrote is none."""
    if not run.exists("config.yaml"):
        return False
    try:
        found = run.read_yaml("config.yaml")
    except yaml.YAMLError:
        return False
    return isinstance(found, dict) and {"config", "data", "made_with"} <= found.keys()


def _check_same(run: Storage, data: Interactions, content: dict[str, Any]) -> None:
    before = run.read_yaml("config.yaml")
    differing = [
        f"{part}.{key} was {before.get(part, {}).get(key)!r}, now {value!r}"
        for part, settings in content.items()
        for key, value in settings.items()
        if key not in WORK_LIST and before.get(part, {}).get(key) != value
    ]
    if differing:
        raise RunDirectoryError(
            f"{run.root} was made with other settings: {'; '.join(differing)}. The same ones were expected (only "
            f"{', '.join(WORK_LIST)} may change). Give the old values, or choose another --out."
        )
    found = run.read_json("data.json")["sha256"]
    if found != data.sha256:
        raise RunDirectoryError(
            f"{run.root} was made from data with sha256 {found[:12]}, but the data given now has {data.sha256[:12]}. "
            "Give the same file and reading options, or choose another --out."
        )


class TrainingProgress:
    """A bar on a terminal, a line an evaluation in a log."""

    def __init__(self, title: str, config: FitConfig) -> None:
        self.title, self.config = title, config
        self.terminal = sys.stderr.isatty()
        self.bar: Any = None
        self.stage = ""
        self.best = 0.0

    def __enter__(self) -> "TrainingProgress":
        print(self.title, file=sys.stderr, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_epoch(self, name: str, stage: str, record: EpochRecord) -> None:
        """Show one epoch of the stage `choose` or `refit`."""
        if record.quality is not None:
            self.best = max(self.best, record.quality)
        quality = f"valid {record.quality:.4f}" if record.quality is not None else ""
        if not self.terminal:
            if record.epoch % (5 * self.config.training.evaluate_every) == 0:
                print(f"  {stage} epoch {record.epoch} loss {record.loss:.4f} {quality}", file=sys.stderr, flush=True)
            return
        if self.bar is None or self.stage != stage:
            if self.bar is not None:
                self.bar.close()
            self.stage = stage
            self.bar = tqdm(desc=f"  {stage}", unit=" epochs", initial=record.epoch - 1)
        self.bar.set_postfix_str(f"loss {record.loss:.4f} best valid {self.best:.4f}")
        self.bar.update()
