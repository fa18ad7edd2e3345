"""Selective retraining (section 2.3, line 17 of Algorithm 1): from the masks of a search to tested tables.

For each budget the best masks, and equal sizes beside them, are trained to convergence from scratch. Validation chooses
among them by the mean quality ratio (Eq. 16); the chosen one is trained anew on training and validation data, tested
once and saved. Full, equal and mixed sizes go the same way.
"""

from collections.abc import Callable

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.masks.mask import PrefixMask
from ciess.methods import METHODS
from ciess.retraining.choice import (
    Judged,
    Option,
    decide,
    mask_key,
    mean_ratio,
    options_for,
    recorded_choices,
    searched_table,
)
from ciess.retraining.halving import judged_by_halving
from ciess.search.candidates import Candidate
from ciess.search.environment import Environment
from ciess.search.reference import Reference
from ciess.storage.columns import CHOSEN, SEARCHED
from ciess.storage.storage import Storage
from ciess.tables.protocol import OnEpoch, train_and_choose, train_table
from ciess.tables.references import References
from ciess.tables.results import Chosen, forget_table
from ciess.tables.spec import TableSpec


class Retraining:
    """Retraining of one search, budget by budget; what is finished is not done again."""

    def __init__(
        self,
        data: Interactions,
        config: SearchConfig,
        settings: RetrainConfig,
        visited: list[Candidate],
        reference: Reference,
        environment: Environment,
        run: Storage,
        search_id: str,
        on_epoch: OnEpoch | None = None,
        announce: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Retrain what a search has visited.

        Args:
            data: what the search was run on.
            config: of the search.
            settings: what to retrain.
            visited: masks that the search has tried.
            reference: of the search.
            environment: of the search.
            run: its run directory.
            search_id: for the results.
            on_epoch: called after each epoch of a training.
            announce: called with a title before each training.
        """
        self.data, self.config, self.settings, self.visited = data, config, settings, visited
        self.reference, self.environment, self.run = reference, environment, run
        self.search_id, self.on_epoch, self.announce = search_id, on_epoch, announce
        self.recommender = config.started()

    @property
    def compare(self) -> tuple[str, ...]:
        """Methods beside the search: what it has to beat."""
        if self.settings.compare is not None:
            return self.settings.compare
        return ("full", "equal", "sized") if self.config.sparsity else ("full", "equal", "mixed")

    def options(self, sparsity: float) -> list[Option]:
        """The masks that stand for choice at a budget.

        Raises:
            BudgetError: as `options_for` does.
        """
        return options_for(sparsity, self.visited, self.config, self.settings, self.environment, self.run.root)

    def budget(self, sparsity: float, seed: int) -> None:
        """Retrain the options of a budget, choose by validation, and train the tables of the budget."""
        # What was best on the half that is chosen by stays; a quality ratio may fall again.
        halved = self.settings.halving and self.config.halves
        # What another budget gave up was not trained to the end, and may be worth it here.
        options, known = self.options(sparsity), self._known(seed, sparsity if halved else None)

        def judge(option: Option, share: float = 1.0) -> Judged:
            if option.key in known:
                return known[option.key]
            part = "" if share == 1 else f", {100 * share:g} % of the epochs"
            self.announce(f"[{100 * sparsity:g} %, {options.index(option) + 1}/{len(options)}{part}] {option.where}")
            return self._judge(option, sparsity, seed, share)

        judged = judged_by_halving(options, judge) if halved else [judge(option) for option in options]
        known |= {option.key: found for option, found in zip(options, judged, strict=True)}
        decision = decide(self.run, sparsity, seed, options, judged)
        for position, spec in decision.tables(self.config, self.search_id, sparsity, seed):
            self._train(spec, judged[position])
        if not decision.rule_won:
            forget_table(self.run, self._table(options[decision.searched], sparsity, seed, SEARCHED).name)
        for spec in self._compared([m for m in self.compare if m != "full"], sparsity, seed):
            assert isinstance(spec.mask, PrefixMask)
            self._train(spec, known.get(mask_key(spec.mask, spec.start)))

    def full(self, seed: int) -> None:
        """The full table; the reference is its training already, where the seed is the same."""
        if "full" not in self.compare:
            return
        reference = self.reference
        same = seed == self.config.seed
        chosen = Chosen(
            reference.quality[: self.data.n_users],
            reference.metrics,
            reference.epochs,
            reference.history,
            reference.seconds,
            trial=reference.trial,
        )
        for spec in self._compared(["full"], None, seed):
            self._train(spec, Judged(1.0, reference.metrics["quality"], reference.epochs, chosen) if same else None)

    def _compared(self, methods: list[str], sparsity: float | None, seed: int) -> list[TableSpec]:
        config = FitConfig(**{name: getattr(self.recommender, name) for name in type(self.recommender).model_fields})
        budgets = [] if sparsity is None else [masks.exact(sparsity)]
        return [table for method in methods for table in METHODS[method].compress(self.data, config, budgets, seed)]

    def _progress(self, spec: TableSpec) -> Storage:
        """Checkpoints by mask, start and seed, so that equal trainings are one."""
        assert isinstance(spec.mask, PrefixMask)
        return self.run.child("progress", f"{mask_key(spec.mask, spec.start)}-s{spec.seed}")

    def _judge(self, option: Option, sparsity: float, seed: int, share: float) -> Judged:
        """Train a mask to convergence, or for a share of its epochs.

        Its ratio is the mean of Eq. 7 over users and items (Eq. 16).
        """
        spec = self._table(option, sparsity, seed)
        folder, references, by_half = self._progress(spec), self._references(seed), self.config.halves
        chosen = train_and_choose(
            self.data, spec, self.recommender, folder, self.on_epoch, references, by_half=by_half, share=share
        )
        ratio = mean_ratio(self.environment, chosen.user_quality)
        return Judged(ratio, chosen.means["quality"], chosen.epoch, chosen, chosen.choice)

    def _known(self, seed: int, sparsity: float | None) -> dict[str, Judged]:
        """By mask, what earlier runs have found with this seed, at a budget or at any."""
        rows = [row for row in recorded_choices(self.run) if row["seed"] == seed]
        rows = [row for row in rows if sparsity is None or row["target_sparsity"] == sparsity]
        return {
            row["mask"]: Judged(row["quality_ratio"], row["quality"], row["epochs"], choice=row["choice_quality"])
            for row in rows
        }

    def _table(self, option: Option, sparsity: float, seed: int, role: str = CHOSEN) -> TableSpec:
        return searched_table(option, self.config, self.search_id, sparsity, seed, role=role)

    def _train(self, spec: TableSpec, judged: Judged | None) -> None:
        """Refit, test and save, unless this very table is there; judged: None for a mask that stood for no choice."""
        if self._finished(spec):
            return
        self.announce(f"table {spec.name}")
        train_table(
            self.data,
            spec,
            self.recommender,
            self.run,
            self.settings.refit,
            self.on_epoch,
            progress=self._progress(spec),
            chosen=None if judged is None else judged.chosen,
            reference=self._references(spec.seed),
            by_half=self.config.halves,
        )

    def _references(self, seed: int) -> References:
        """Of the search's seed its own reference serves."""
        reference = self.reference
        known = (reference.weights, reference.trial, reference.epochs) if seed == self.config.seed else None
        return References(self.recommender, seed, self.run.child("progress", f"reference-s{seed}"), known)

    def _finished(self, spec: TableSpec) -> bool:
        file = f"tables/{spec.name}/card.json"
        if not self.run.exists(file):
            return False
        card = self.run.read_json(file)
        same_mask = card.get("search", {}).get("mask_sha256") == spec.search.get("mask_sha256")
        same_data = card["trained_on"] == ("train+valid" if self.settings.refit else "train")
        return bool(same_mask and same_data and card["flag"] == spec.flag)
