"""What follows from the searches of a sweep: the masks to train, the choice among them, the tables to test.

Searches and methods often ask for the same mask, equal sizes above all; it is then trained once, and tested once.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from ciess import masks
from ciess.cluster.sweep.config import SweepConfig, variant_of_search
from ciess.cluster.sweep.work import MethodWork, ReferenceWork, SearchWork, TableWork, TrainingWork
from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.errors import BudgetError
from ciess.masks.mask import PrefixMask
from ciess.methods import METHODS
from ciess.retraining.choice import Judged, Option, decide, mean_ratio, options_for, searched_table
from ciess.runs.directory import read_visited
from ciess.search.candidates import Candidate
from ciess.search.environment import Environment
from ciess.search.reference import environment_of, train_reference
from ciess.storage.storage import Storage
from ciess.tables.results import Chosen
from ciess.tables.spec import TableSpec
from ciess.tables.trials import training_fingerprint
from ciess.training.loop import FitRequest

UNMET, FAILED = "unmet", "failed"
"""Why a search has no table at a budget: no mask keeps it, or something broke down."""


@dataclass(frozen=True)
class Absence:
    """A search and budget without a table.

    Attributes:
        search: its name, or `<backbone>-<method>-s<seed>`.
        sparsity: None where that of the method is an outcome.
        reason: UNMET or FAILED.
        text: for the reader.
    """

    search: str
    sparsity: float | None
    reason: str
    text: str


@dataclass(frozen=True, eq=False)
class _Finished:
    """A finished search: its masks, and what judges them."""

    name: str
    work: SearchWork
    visited: list[Candidate]
    environment: Environment


@dataclass(eq=False)
class RetrainingPlan:
    """Trainings by key; which of them each search and budget chooses from; what is missing."""

    data: Interactions
    config: SweepConfig
    sweep: Storage
    references: Mapping[str, ReferenceWork]
    searches: Mapping[str, SearchWork]
    failures: Mapping[str, str]
    learned: Mapping[str, MethodWork] = field(default_factory=dict)
    trainings: dict[str, TrainingWork] = field(default_factory=dict)
    absences: list[Absence] = field(default_factory=list)
    _choices: dict[tuple[str, float], tuple[_Finished, list[Option], list[str]]] = field(default_factory=dict)
    _methods: list[tuple[TableSpec, RecommenderConfig, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, work in self.searches.items():
            if name in self.failures:
                self.absences += [Absence(name, c, FAILED, self.failures[name]) for c in self.config.sparsities]
            else:
                self._plan_search(name, work)
        for backbone_reference in self.references.values():
            self._plan_methods(backbone_reference)

    def tables(self, failures: Mapping[str, str]) -> dict[str, TableWork]:
        """What is tested and saved, by key, once the trainings have ended.

        Args:
            failures: of them, by key.
        """
        chosen = {key: work.chosen() for key, work in self.trainings.items() if key not in failures}
        wanted: list[tuple[TableSpec, RecommenderConfig, str]] = []
        for (name, sparsity), (finished, options, keys) in self._choices.items():
            lost = [failures[key] for key in keys if key in failures]
            if lost:
                self.absences.append(Absence(name, sparsity, FAILED, lost[0]))
                continue
            wanted += self._choose(finished, sparsity, options, keys, chosen)
        wanted += [entry for entry in self._methods if entry[2] not in failures]
        grouped: dict[str, list[tuple[TableSpec, RecommenderConfig]]] = {}
        for spec, recommender, key in wanted:
            grouped.setdefault(key, []).append((spec, recommender))
        return {
            key: TableWork(
                self.sweep.child("trainings", key, "table"),
                [spec for spec, _ in entries],
                entries[0][1],
                chosen[key] if key in chosen else self._full(key),
                [self.sweep.child("tables", spec.name) for spec, _ in entries],
                self._reference(entries[0][1], entries[0][0].seed),
            )
            for key, entries in grouped.items()
        }

    def _plan_search(self, name: str, work: SearchWork) -> None:
        config = work.config
        reference = train_reference(self.data, config.started(), config.seed, work.folder.child("reference"))
        visited = read_visited(work.folder, config)
        finished = _Finished(name, work, visited, environment_of(self.data, config, reference, half=1))
        for sparsity in dict.fromkeys(self.config.sparsities):
            try:
                options = options_for(
                    sparsity, visited, config, self.config.retraining, finished.environment, work.folder.root
                )
            except BudgetError as error:
                self.absences.append(Absence(name, sparsity, UNMET, str(error)))
                continue
            variant = variant_of_search(name)
            tables = [searched_table(option, config, name, sparsity, config.seed, None, variant) for option in options]
            keys = [self._training(table, config.started(), config.halves) for table in tables]
            self._choices[name, sparsity] = (finished, options, keys)

    def _plan_methods(self, work: ReferenceWork) -> None:
        config = self.config.methods_of(work.config)
        budgets = [masks.exact(c) for c in dict.fromkeys(self.config.sparsities)]
        for method in dict.fromkeys(self.config.methods):
            if method == "full" and not work.finished:
                # Its reference failed, and the driver trains nothing.
                continue
            for table in self._tables_of(method, config, budgets, work.seed):
                named = dataclasses.replace(table, variant="-".join(filter(None, (table.variant, config.backbone))))
                key = self._key(named, work.config) if method == "full" else self._training(named, work.config)
                self._methods.append((named, work.config, key))

    def _tables_of(self, method: str, config: FitConfig, budgets: Sequence[Fraction], seed: int) -> list[TableSpec]:
        """A learned method's masks were found by a trial of its own, as the driver trains nothing."""
        if not METHODS[method].learned:
            return METHODS[method].compress(self.data, config, budgets, seed)
        name = f"{config.backbone}-{method}-s{seed}"
        if name in self.failures:
            missing = [float(c) for c in budgets] if METHODS[method].precise else [None]
            self.absences += [Absence(name, c, FAILED, self.failures[name]) for c in missing]
            return []
        return self.learned[name].masks(self.data).learn(budgets)

    def _key(self, table: TableSpec, recommender: RecommenderConfig, by_half: bool = False) -> str:
        request = FitRequest(
            recommender,
            table.mask,
            table.seed,
            initial=table.initial,
            decoder=table.decoder,
            choose_by_half=by_half,
        )
        return training_fingerprint(self.data, recommender, request, table.start)[:16]

    def _training(self, table: TableSpec, recommender: RecommenderConfig, by_half: bool = False) -> str:
        key = self._key(table, recommender, by_half)
        folder = self.sweep.child("trainings", key)
        reference = self._reference(recommender, table.seed)
        self.trainings.setdefault(key, TrainingWork(folder, table, recommender, by_half, reference))
        return key

    def _reference(self, recommender: RecommenderConfig, seed: int) -> Storage | None:
        """The folder of a finished one of stage 0."""
        for work in self.references.values():
            if (work.config, work.seed) == (recommender, seed) and work.finished:
                return work.folder
        return None

    def _choose(
        self, finished: _Finished, sparsity: float, options: list[Option], keys: list[str], chosen: dict[str, Chosen]
    ) -> list[tuple[TableSpec, RecommenderConfig, str]]:
        """The tables of a search and budget; what stood for choice is written beside the search."""
        config = finished.work.config
        judged = []
        for key in keys:
            ratio = mean_ratio(finished.environment, chosen[key].user_quality)
            found = chosen[key]
            judged.append(Judged(ratio, found.means["quality"], found.epoch, choice=found.choice))
        decision = decide(finished.work.folder, sparsity, config.seed, options, judged)
        tables = decision.tables(config, finished.name, sparsity, config.seed, variant_of_search(finished.name))
        return [(spec, config.started(), keys[position]) for position, spec in tables]

    def _full(self, key: str) -> Chosen:
        """The training of a full table: its reference."""
        for table, recommender, own in self._methods:
            if own == key and isinstance(table.mask, PrefixMask):
                work = next(w for w in self.references.values() if (w.config, w.seed) == (recommender, table.seed))
                reference = train_reference(self.data, recommender, table.seed, work.folder)
                users = reference.quality[: self.data.n_users]
                return Chosen(
                    users,
                    reference.metrics,
                    reference.epochs,
                    reference.history,
                    reference.seconds,
                    trial=reference.trial,
                )
        raise KeyError(key)
