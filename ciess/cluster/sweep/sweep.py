"""A sweep: references, searches, learned methods, retrainings and tables as Ray Tune trials, then one table, pictures.

    <storage>/<name>/
        config.yaml  data.json      what was asked for, and of which data
        references/<backbone>-s0/   the full-size model of each backbone and seed
        searches/<name>/            a run directory each, as `ciess search` makes it
        learned/<name>/             masks of the learned methods, such as lightgcn-pep-s0
        trainings/<key>/            masks trained to convergence, by what they depend on
        tables/<name>/              compressed tables with their rows of results.parquet
        results.parquet  per_user.parquet  figures/  timings.parquet
        tune/                       Ray Tune's own files: event files for TensorBoard, CSV, errors

The same call again goes on: what has its last file is finished, all else goes on from its own checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
from matplotlib.figure import Figure
from ray.tune import Callback

from ciess import masks
from ciess.cluster.config import ClusterConfig
from ciess.cluster.placement import concurrent_trials, living_nodes, possible_nodes
from ciess.cluster.shared_data import SharedData, check_nodes
from ciess.cluster.sweep.config import SweepConfig
from ciess.cluster.sweep.plan import UNMET, RetrainingPlan
from ciess.cluster.sweep.report import collect, describe_sweep_tests, sweep_table, write_pictures
from ciess.cluster.sweep.stage import Sitting, TrialResources, run_stage
from ciess.cluster.sweep.work import MethodWork, ReferenceWork, SearchWork
from ciess.config.data import DataConfig
from ciess.data import Interactions
from ciess.data.halving import check_halves
from ciess.errors import InputError, RunDirectoryError, SweepError
from ciess.methods import METHODS
from ciess.reporting.figures.learned import draw_learned
from ciess.runs.directory import holds_run, open_run
from ciess.runs.progress import duration
from ciess.storage.storage import Storage

PROBE = "writable"
"""File that is written and deleted again before anything else is done."""

Result = TypeVar("Result")


def run_sweep(
    data: Interactions,
    config: SweepConfig,
    storage: str,
    name: str,
    to: ClusterConfig | None = None,
    options: DataConfig | None = None,
    callbacks: Sequence[Callback] = (),
) -> str:
    """Run a sweep, or what is left of it, on the Ray cluster that this process is connected to.

    Args:
        data: interactions with all three parts.
        config: what is searched and retrained.
        storage: a path or a URI that all nodes see.
        name: of the folder below it.
        to: workers and their resources.
        options: how the data was read.
        callbacks: further ones of Ray Tune's, for instance of Weights & Biases or MLflow.

    Returns:
        the text of the summary.

    Raises:
        InputError: settings that do not go together.
        BudgetError: a budget that cannot be met.
        DataError: data without validation or test pairs.
        RunDirectoryError: a folder that cannot be written or holds another sweep.
        PlacementError: resources that no node has; all of these before anything is trained.
        SweepError: a part has failed, once all others are finished.
    """
    return Sweep(data, config, storage, name, to or ClusterConfig(), options or DataConfig(), callbacks).run()


class Sweep:
    """A sweep in progress."""

    def __init__(
        self,
        data: Interactions,
        config: SweepConfig,
        storage: str,
        name: str,
        to: ClusterConfig,
        options: DataConfig,
        callbacks: Sequence[Callback],
    ) -> None:
        self.data, self.config, self.to, self.options = data, config, to, options
        self.began = time.monotonic()
        check_settings(config, storage, name, to)
        _check_data(data, config)
        searches = config.searches
        self.sweep = Storage(f"{storage.rstrip('/')}/{name}")
        self.searching, self.training = concurrent_trials(to, living_nodes(), possible_nodes())
        open_run(self.sweep, data, config, options, resume=holds_run(self.sweep), option="--name")
        self.shared = SharedData.of(data, options, to.read_data_on)
        if to.read_data_on == "workers":
            check_nodes(self.shared)
        self.sitting = Sitting(self.sweep.child("tune"), callbacks)
        self.seconds: dict[str, float] = {}
        self.references: dict[str, ReferenceWork] = {}
        self.searches: dict[str, SearchWork] = {}
        self.methods: dict[str, MethodWork] = {}
        for key, search in searches.items():
            label = f"{search.backbone}-s{search.seed}"
            work = ReferenceWork(self.sweep.child("references", label), search.started(), search.seed)
            self.references.setdefault(label, work)
            run = Storage(f"{self.sweep.location}/searches/{key}")
            self.searches[key] = SearchWork(key, run, search, self.references[label].folder, options, to)
        budgets = [masks.exact(sparsity) for sparsity in dict.fromkeys(config.sparsities)]
        for known in self.references.values():
            settings = config.methods_of(known.config)
            for method in dict.fromkeys(config.methods):
                if METHODS[method].learned:
                    name = f"{known.config.backbone}-{method}-s{known.seed}"
                    folder = self.sweep.child("learned", name)
                    self.methods[name] = MethodWork(folder, method, settings, known.seed, budgets)

    def run(self) -> str:
        """Everything that is left; returns the summary.

        Raises:
            SweepError: a part has failed.
        """
        print(
            f"{self.data.name}: {len(self.references)} references, {len(self.searches)} searches; at a time, as this "
            f"cluster has room or by --max-concurrent-trials: {self.searching} searches of "
            f"{self.to.workers_per_search} workers, {self.training} trainings",
            flush=True,
        )
        failures = self._search()
        trainings = TrialResources(self.to.training_resources, self.training, self.to.max_failures)
        if self.methods:
            failures |= self._timed(
                "methods", lambda: run_stage("methods", self.methods, self.shared, trainings, self.sitting)
            )
        plan = RetrainingPlan(
            self.data, self.config, self.sweep, self.references, self.searches, failures, self.methods
        )
        lost = self._timed(
            "retraining", lambda: run_stage("retraining", plan.trainings, self.shared, trainings, self.sitting)
        )
        tables = plan.tables(lost)
        untested = self._timed("tables", lambda: run_stage("tables", tables, self.shared, trainings, self.sitting))
        names = [table.name for work in tables.values() for table in work.tables]
        results = collect(self.sweep, names)
        walked = {key: work.config.random_walk for key, work in self.searches.items() if key not in failures}
        written = self._timed(
            "pictures", lambda: write_pictures(self.sweep, results, self.config, walked, self._learned())
        )
        text = "\n".join(
            [
                f"{self.data.name}",
                sweep_table(results, self.config, plan.absences),
                "",
                *describe_sweep_tests(self.sweep, results),
                "",
                *(f"{a.search}: {a.text}" for a in plan.absences if a.reason == UNMET),
                *(f"wrote {path}" for path in [self.sweep.path("results.parquet"), *written]),
                self._spent(),
            ]
        )
        broken = {**failures, **{key: lost[key] for key in lost}, **untested}
        if broken:
            print(text, flush=True)
            raise SweepError(
                f"{len(broken)} parts of this sweep failed, and all others are finished: "
                + " ".join(f"[{key}] {message}" for key, message in broken.items())
                + " The same command tries them again; settings that break fits down need another --name."
            )
        return text

    def _search(self) -> dict[str, str]:
        """References and searches; returns what went wrong by search."""
        trials = TrialResources(self.to.training_resources, self.training, self.to.max_failures)
        lost = self._timed(
            "references", lambda: run_stage("references", self.references, self.shared, trials, self.sitting)
        )
        failures = {}
        for key, search in self.searches.items():
            label = f"{search.config.backbone}-s{search.config.seed}"
            if label in lost:
                failures[key] = f"its reference failed: {lost[label]}"
        able = {key: work for key, work in self.searches.items() if key not in failures}
        trials = TrialResources(self.to.search_resources, self.searching, self.to.max_failures)
        return failures | self._timed(
            "searches", lambda: run_stage("searches", able, self.shared, trials, self.sitting)
        )

    def _learned(self) -> dict[str, Figure]:
        """How the learned methods found their masks."""
        degrees, drawn = self.data.degrees(), dict[str, Figure]()
        for name, work in self.methods.items():
            if work.finished:
                masks_found = work.masks(self.data)
                shown = [(table.title, table.mask, table.target_sparsity) for table in masks_found.tables()]
                drawn |= draw_learned(name, masks_found.history(), shown, self.data.n_users, degrees)
        return drawn

    def _timed(self, stage: str, call: Callable[[], Result]) -> Result:
        start = time.monotonic()
        self.seconds.setdefault("start", start - self.began)
        try:
            return call()
        finally:
            self.seconds[stage] = time.monotonic() - start

    def _spent(self) -> str:
        """Write the seconds of this sitting beside those of earlier ones, and sum them up."""
        file, rows = "timings.parquet", []
        if self.sweep.exists(file):
            rows = self.sweep.read_table(file).to_pylist()
        sitting = 1 + max((row["sitting"] for row in rows), default=0)
        rows += [{"sitting": sitting, "stage": stage, "seconds": value} for stage, value in self.seconds.items()]
        self.sweep.write_table(file, pa.Table.from_pylist(rows))
        total = {stage: sum(row["seconds"] for row in rows if row["stage"] == stage) for stage in self.seconds}
        return f"time in {sitting} sittings: " + ", ".join(f"{stage} {duration(s)}" for stage, s in total.items())


def check_settings(config: SweepConfig, storage: str, name: str, to: ClusterConfig) -> None:
    """Raise InputError for what is wrong whatever the data and the cluster are."""
    if not name or "/" in name or "\\" in name or name in (".", ".."):
        raise InputError(
            f"--name is {name!r}, but the name of a folder below --storage was expected, without path separators. "
            "Give the path by --storage."
        )
    lanes = max(search.lanes for search in config.searches.values())
    if to.workers_per_search > lanes:
        raise InputError(
            f"Found {to.workers_per_search} workers for the {lanes} lanes of each search; at most as many "
            "workers as lanes were expected, as a round has one fit a lane. Lower --workers-per-search, or raise "
            "--lanes."
        )
    for search in config.searches.values():
        for method in config.methods:
            METHODS[method].check(config.methods_of(search.started()))
    probe = Storage(f"{storage.rstrip('/')}/{name}")
    try:
        probe.write_bytes(PROBE, b"")
        probe.delete(PROBE)
    except RunDirectoryError as error:
        raise RunDirectoryError(
            f"--storage {storage} cannot be written: {error} Expected a folder, or a URI such as s3://bucket/runs, to "
            "which every node of the cluster may write."
        ) from error


def _check_data(data: Interactions, config: SweepConfig) -> None:
    for search in config.searches.values():
        bounds = masks.size_bounds(search, data.n_users, data.n_items)
        for sparsity in config.sparsities:
            masks.budget(data.n, config.max_size, sparsity, bounds)
    recommenders = {search.backbone: search.started() for search in config.searches.values()}
    for recommender in recommenders.values():
        asked = {"seeds": config.seeds, "sparsity": config.sparsities}
        for method in config.methods:
            METHODS[method].check_data(config.methods_of(recommender).model_copy(update=asked), data)
    data.require("valid", "test")
    if any(search.halves for search in config.searches.values()):
        check_halves(
            data.valid,
            data.n_users,
            "Give data with more interactions, or search and choose on all of it by --settings halves=false.",
        )
