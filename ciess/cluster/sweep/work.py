"""The pieces of a sweep that run as trials: references, searches, learned methods, retrainings, tables.

Each has a folder of its own in the sweep's directory, goes on from what it finds there, and is finished when its last
file is written. So any of them may be started again, anywhere, at any time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ciess.cluster.config import ClusterConfig
from ciess.cluster.search import search_on_cluster
from ciess.cluster.shared_data import SharedData
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.config.search import SearchConfig
from ciess.config.starts import StartedConfig
from ciess.data import Interactions
from ciess.methods.learned_masks import LearnedMasks, holds_masks
from ciess.runs.directory import holds_run, open_run
from ciess.runs.progress import describe_round, describe_row
from ciess.search.reference import read_lent_reference, train_reference
from ciess.search.rules import search_rules
from ciess.storage.columns import HISTORY, RESULTS, USER_QUALITY
from ciess.storage.storage import Storage, read_columns
from ciess.tables.protocol import save_table, test_once, train_and_choose
from ciess.tables.references import References
from ciess.tables.results import Chosen, table_result
from ciess.tables.spec import TableSpec
from ciess.tables.trials import Trial
from ciess.training.history import EpochRecord, history_table, read_history

Report = Callable[[dict[str, Any]], None]
"""Called with numbers to be logged, and under `line` what a log shows of them, empty for nothing."""

ADVICE = "Restore the file, or delete the folder to train again."
"""About a file of a training that cannot be used."""

LOGGED_EVERY, LOGGED_SECONDS = 5, 20
"""Evaluations between two lines of a training in the log, and seconds between two of a learned method."""


class Work(Protocol):
    """A piece of a sweep."""

    @property
    def title(self) -> str:
        """Its name in the log."""

    @property
    def folder(self) -> Storage:
        """Where its files are."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""

    def run(self, shared: SharedData, report: Report) -> None:
        """Do what is left.

        Args:
            shared: the interactions.
            report: called with numbers, and words for the log.

        Raises:
            CiessError: it broke down; the words are for the user.
        """


@dataclass(frozen=True, eq=False)
class ReferenceWork:
    """Stage 0: the full-size model of a backbone and seed (Eq. 7), also the table's `full` row."""

    folder: Storage
    config: StartedConfig
    seed: int

    @property
    def title(self) -> str:
        return f"{self.config.backbone}-s{self.seed}"

    @property
    def finished(self) -> bool:
        return self.folder.exists("metrics.json")

    def run(self, shared: SharedData, report: Report) -> None:
        train_reference(shared.load(), self.config, self.seed, self.folder, _by_epoch(self.config, report))


@dataclass(frozen=True, eq=False)
class SearchWork:
    """Stage 1: a whole search; its folder is a run directory as `ciess search` makes it."""

    name: str
    folder: Storage
    config: SearchConfig
    reference: Storage
    options: DataConfig
    to: ClusterConfig

    @property
    def title(self) -> str:
        return self.name

    @property
    def finished(self) -> bool:
        return self.folder.exists("seconds.json")

    def run(self, shared: SharedData, report: Report) -> None:
        data, run = shared.load(), self.folder
        open_run(run, data, self.config, self.options, resume=holds_run(run))
        if not run.exists("reference/metrics.json"):
            lent = read_lent_reference(data, self.config.started(), self.config.seed, self.reference)
            for name, content in lent.items():
                run.child("reference").write_bytes(name, content)
        # Here, where there are CPUs, and not in the actor.
        search_rules(data, self.config, run)
        rounds = (
            len(read_columns(run, "history.parquet", HISTORY)) // self.config.lanes
            if run.exists("history.parquet")
            else 0
        )
        shown = 0

        def on_round(rows: Any) -> None:
            nonlocal shown
            shown += 1
            # The log has the earlier ones already; event files start anew.
            report(_means(rows) | {"line": describe_round(rows, self.config) if shown > rounds else ""})

        seconds = search_on_cluster(shared, self.config, run, self.to, on_round, f"search-{self.name}")
        run.write_json("seconds.json", seconds)


@dataclass(frozen=True, eq=False)
class MethodWork:
    """Stage 2, first half: a learned method finds its masks, one a budget or one whatever the budgets."""

    folder: Storage
    method: str
    config: FitConfig
    seed: int
    budgets: Sequence[Fraction]

    @property
    def title(self) -> str:
        return f"{self.config.backbone}-{self.method}-s{self.seed}"

    @property
    def finished(self) -> bool:
        return holds_masks(self.folder, self.method, self.budgets)

    def run(self, shared: SharedData, report: Report) -> None:
        shown = 0.0

        def on_row(row: Mapping[str, Any]) -> None:
            nonlocal shown
            numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
            line = ""
            if time.monotonic() - shown > LOGGED_SECONDS:
                line, shown = describe_row(row), time.monotonic()
            report(numbers | {"line": line})

        self.masks(shared.load()).learn(self.budgets, on_row)

    def masks(self, data: Interactions) -> LearnedMasks:
        """What it has found, once it is finished."""
        return LearnedMasks(self.method, data, self.config, self.seed, self.folder)


@dataclass(frozen=True, eq=False)
class TrainingWork:
    """Stage 2: a mask trained until validation stops to improve (Eq. 16), for all that ask for it.

    Attributes:
        by_half: by the half of validation that no search has seen.
        reference: folder of the one of its backbone and seed; None trains one of its own, where a start needs it.
    """

    folder: Storage
    spec: TableSpec
    config: RecommenderConfig
    by_half: bool = False
    reference: Storage | None = None

    @property
    def title(self) -> str:
        return f"{self.spec.name} ({self.spec.search.get('mask', 'by rule')})"

    @property
    def finished(self) -> bool:
        return self.folder.exists("chosen.json")

    def run(self, shared: SharedData, report: Report) -> None:
        on_epoch = _by_epoch(self.config, report)
        progress = self.folder.child("choose")
        chosen = train_and_choose(
            shared.load(),
            self.spec,
            self.config,
            self.folder,
            lambda _, stage, record: on_epoch(record, stage),
            _references(shared.load(), self.spec, self.config, self.folder, self.reference),
            by_half=self.by_half,
        )
        self.folder.write_table("quality.parquet", pa.table({"quality": chosen.user_quality}))
        self.folder.write_table("history.parquet", history_table(chosen.history))
        assert chosen.trial is not None
        found = {"means": chosen.means, "epoch": chosen.epoch, "seconds": chosen.seconds, "choice": chosen.choice}
        pairs = len(shared.load().train)
        self.folder.write_json("chosen.json", found | {"trial": chosen.trial.described(), "pairs": pairs})
        progress.delete()

    def chosen(self) -> Chosen:
        """What the training has found, once it is finished."""
        found = self.folder.read_json("chosen.json")
        quality = read_columns(self.folder, "quality.parquet", USER_QUALITY, ADVICE)["quality"].to_numpy()
        history = read_history(self.folder, ADVICE)
        trial = Trial.of(found["trial"], self.config, found["pairs"]) if "trial" in found else None
        return Chosen(
            quality,
            found["means"],
            found["epoch"],
            history,
            found["seconds"],
            trial=trial,
            choice=found.get("choice"),
        )


@dataclass(frozen=True, eq=False)
class TableWork:
    """The last stage: a mask trained on training and validation data, tested once, and saved under its names.

    Attributes:
        tables: of the same mask and seed; several where it serves several budgets or searches, or stands for a method.
        reference: as for its training.
    """

    folder: Storage
    tables: list[TableSpec]
    config: RecommenderConfig
    chosen: Chosen
    folders: list[Storage] = field(default_factory=list)
    reference: Storage | None = None

    @property
    def title(self) -> str:
        return ", ".join(spec.name for spec in self.tables)

    @property
    def finished(self) -> bool:
        return all(folder.exists("card.json") for folder in self.folders)

    def run(self, shared: SharedData, report: Report) -> None:
        data, on_epoch = shared.load(), _by_epoch(self.config, report)
        spec = self.tables[0]
        references = _references(data, spec, self.config, self.folder, self.reference)
        tested = test_once(
            data,
            spec,
            self.config,
            self.chosen,
            self.folder,
            on_epoch=lambda _, stage, record: on_epoch(record, stage),
            reference=references,
        )
        for spec, folder in zip(self.tables, self.folders, strict=True):
            result = table_result(data, spec, self.config, self.chosen, tested)
            folder.write_table("results.parquet", pa.Table.from_pylist(result.rows, schema=RESULTS))
            folder.write_table("per_user.parquet", result.per_user)
            save_table(data, spec, self.config, self.chosen, tested, folder)
        self.folder.child("refit").delete()


def _references(
    data: Interactions, spec: TableSpec, config: RecommenderConfig, folder: Storage, trained: Storage | None
) -> References:
    """What stage 0 has trained on the training part, and for a refit another below the table's folder."""
    known = None
    if trained is not None:
        found = train_reference(data, config, spec.seed, trained)
        known = (found.weights, found.trial, found.epochs)
    return References(config, spec.seed, folder.child("reference"), known)


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the lanes of what a round's rows count."""
    names = [name for name, value in rows[0].items() if isinstance(value, int | float) and name != "lane"]
    return {name: float(np.mean([row[name] for row in rows])) for name in names if rows[-1][name] is not None}


def _by_epoch(config: RecommenderConfig, report: Report) -> Callable[..., None]:
    """Report the evaluations of a training, or every so many epochs of one without, under the name of its trial."""
    every = config.training.evaluate_every

    def on_epoch(record: EpochRecord, stage: str = "") -> None:
        if record.epoch % every:
            return
        quality = "" if record.quality is None else f", valid quality {record.quality:.4f}"
        shown = record.epoch % (LOGGED_EVERY * every) == 0
        loss = "the start" if record.loss is None else f"loss {record.loss:.4f}"
        trial = "".join(f"{word}, " for word in stage.split()[1:])
        line = f"{trial}epoch {record.epoch}, {loss}{quality}" if shown else ""
        numbers = {"epoch": record.epoch, "loss": record.loss, "quality": record.quality}
        report({name: value for name, value in numbers.items() if value is not None} | {"line": line})

    return on_epoch
