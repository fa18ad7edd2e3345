"""From masks to tested tables, by one protocol for every method (line 17 of Algorithm 1, section 2.3).

Train on training data from each start until validation stops to improve, choose start and epoch there, the untrained
start being one of the epochs; train anew on training and validation
data for as many epochs; rank on test once; save the compressed table.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable

from ciess.config.recommender import RecommenderConfig, TrainingConfig
from ciess.config.starts import TRIED_SHARE
from ciess.data import Interactions
from ciess.devices import cpu_threads, give_back_memory, resolve_device
from ciess.evaluation.metrics import UserMetrics
from ciess.evaluation.sample import evaluated_users
from ciess.masks.mask import row_sizes
from ciess.storage.storage import Storage
from ciess.tables.references import References
from ciess.tables.results import Chosen, TableResult, Tested, record_results, table_result
from ciess.tables.spec import TableSpec
from ciess.tables.table import CompressedTable
from ciess.tables.trials import Reference, Trial, finalists, trials_of
from ciess.training.fit import FitResult, fit
from ciess.training.history import EpochRecord, history_table
from ciess.training.loop import FitRequest
from ciess.training.prepared import prepare
from ciess.training.starts.start import FRESH

OnEpoch = Callable[[str, str, EpochRecord], None]
"""Called with (table name, `choose` or `refit` and the trial's name where it starts well, record) after every epoch."""


def train_and_choose(
    data: Interactions,
    spec: TableSpec,
    config: RecommenderConfig,
    progress: Storage,
    on_epoch: OnEpoch | None = None,
    reference: Reference | None = None,
    stage: str | None = "choose",
    by_half: bool = False,
    share: float = 1.0,
) -> Chosen:
    """Train on the training part until validation stops to improve, from each start that is tried, and keep the best.

    A training whose checkpoint is complete is not trained again.

    Args:
        data: interactions with n users and items.
        spec: the table to train.
        config: settings of the recommender, and of its starts where they are a `StartedConfig`.
        progress: folder of the checkpoints.
        on_epoch: called after every epoch.
        reference: gives a reference's weights for data.
        stage: folder of the checkpoints below `progress`, None for that folder itself.
        by_half: choose epochs, starts and losses on the half of validation that no search has seen.
        share: pause every training after this share of its most epochs; an equal call with a larger one goes on.

    Returns:
        the best of them by the mean of Eq. 8 on validation; of equals the first.

    Raises:
        FitError: a loss that is not finite.
        InputError: a start that the backbone does not allow.
    """
    began = time.perf_counter()
    reference = References(config, spec.seed, progress.child("reference")) if reference is None else reference
    folder = progress if stage is None else progress.child(stage)

    def judge(trial: Trial, share: float) -> Chosen:
        give_back_memory()
        request = _request(data, spec, config, trial, "choose", None, folder, on_epoch, reference)
        until = None if share == 1 else _pause(trial.training, share)
        result = fit(data, dataclasses.replace(request, choose_by_half=by_half, until=until))
        found = result.validation
        assert found is not None
        means = found.means() | {"quality": found.mean_quality()}
        judged = found.parts[1] if by_half else found
        choice = judged.mean_quality() if by_half else None
        if until is not None:
            # A training that an earlier sitting took further counts by what it had then.
            known = [record for record in result.history if record.quality is not None and record.epoch <= until]
            then = max(record.quality or 0.0 for record in known)
            choice, means = (then, means) if by_half else (None, means | {"quality": then})
        return Chosen(judged.quality(), means, result.best_epoch, result.history, 0.0, result, trial, choice)

    def going_on(rivals: list[Trial]) -> list[Trial]:
        early = min(share, TRIED_SHARE)
        # Without the models, which may be large.
        found = [dataclasses.replace(judge(trial, early), result=None) for trial in rivals]
        ends = [_pause(trial.training, early) for trial in rivals]
        rising = [_rises(chosen, end) for chosen, end in zip(found, ends, strict=True)]
        return finalists(rivals, [_merit(chosen) for chosen in found], rising)

    best: Chosen | None = None
    # Kinds are not told apart so early: softmax from a projected start rises for long.
    for _, kind in itertools.groupby(trials_of(data, spec, config, reference), lambda trial: trial.kind):
        rivals = list(kind)
        for trial in rivals if len(rivals) == 1 else going_on(rivals):
            now = judge(trial, share)
            if best is None or _merit(now) > _merit(best):
                best = now
    assert best is not None
    return dataclasses.replace(best, seconds=time.perf_counter() - began)


def _pause(training: TrainingConfig, share: float) -> int:
    """The first evaluation at or after a share of the most epochs."""
    return math.ceil(share * training.max_epochs / training.evaluate_every) * training.evaluate_every


def _rises(chosen: Chosen, end: int) -> bool:
    """Whether the last evaluation until an epoch was the best of its training."""
    known = [record for record in chosen.history if record.quality is not None and record.epoch <= end]
    return max(known, key=lambda record: record.quality or 0.0) is known[-1]


def _merit(chosen: Chosen) -> float:
    return chosen.means["quality"] if chosen.choice is None else chosen.choice


def train_table(
    data: Interactions,
    spec: TableSpec,
    config: RecommenderConfig,
    run: Storage,
    refit: bool = True,
    on_epoch: OnEpoch | None = None,
    progress: Storage | None = None,
    chosen: Chosen | None = None,
    reference: Reference | None = None,
    by_half: bool = False,
) -> TableResult:
    """Train, choose, refit, test once and save below run/tables; an interrupted training goes on where it was.

    Args:
        data: interactions with n users and items.
        spec: the table to train.
        config: settings of the recommender.
        run: run directory.
        refit: train on training and validation data before the test.
        on_epoch: called after every epoch.
        progress: folder of the checkpoints, kept for other tables with the same mask and seed; by default one of its
            own, deleted after the test.
        chosen: what `train_and_choose` has found already.
        reference: gives a reference's weights for data.
        by_half: as for `train_and_choose`.

    Raises:
        FitError: a loss that is not finite.
    """
    folder = progress or run.child("progress", spec.name)
    if chosen is None or (chosen.result is None and not refit):
        chosen = train_and_choose(data, spec, config, folder, on_epoch, reference, by_half=by_half)
    # A model that is trained anew need not be kept meanwhile.
    chosen = dataclasses.replace(chosen, result=None) if refit else chosen
    tested = test_once(data, spec, config, chosen, folder, refit, on_epoch, reference)
    result = table_result(data, spec, config, chosen, tested)
    record_results(run, spec.name, result)
    save_table(data, spec, config, chosen, tested, run.child("tables", spec.name))
    if progress is None:
        folder.delete()
    return result


def test_once(
    data: Interactions,
    spec: TableSpec,
    config: RecommenderConfig,
    chosen: Chosen,
    progress: Storage,
    refit: bool = True,
    on_epoch: OnEpoch | None = None,
    reference: Reference | None = None,
) -> Tested:
    """Train on training and validation data for the chosen epochs, unless `refit` is off, and rank on test.

    Args:
        data: interactions with n users and items.
        spec: the table to train.
        config: settings of the recommender.
        chosen: what choosing by validation gave.
        progress: folder of the checkpoint of that training.
        refit: train on training and validation data before the test.
        on_epoch: called after every epoch.
        reference: gives a reference's weights for data.

    Raises:
        FitError: a loss that is not finite.
    """
    trained_on, final, seconds = data, chosen.result, chosen.seconds
    if refit:
        trained_on = data.merged()
        began = time.perf_counter()
        final = train_on_all(trained_on, spec, config, chosen, progress, on_epoch, reference)
        seconds += time.perf_counter() - began
    assert final is not None
    return Tested(final, trained_on, test_metrics(trained_on, config, final), seconds, refit)


def train_on_all(
    data: Interactions,
    spec: TableSpec,
    config: RecommenderConfig,
    chosen: Chosen,
    progress: Storage,
    on_epoch: OnEpoch | None = None,
    reference: Reference | None = None,
) -> FitResult:
    """Train as validation chose, for as many epochs, on data whose validation pairs went into training.

    Args:
        data: such data.
        spec: the table to train.
        config: settings of the recommender.
        chosen: what choosing by validation gave.
        progress: folder of the checkpoint.
        on_epoch: called after every epoch.
        reference: gives a reference's weights for data.

    Returns:
        the model.
    """
    reference = References(config, spec.seed, progress.child("reference")) if reference is None else reference
    trial = chosen.trial or Trial(None if spec.initial or spec.decoder else FRESH, config.training)
    folder = progress.child("refit")
    give_back_memory()
    return fit(data, _request(data, spec, config, trial, "refit", chosen.epoch, folder, on_epoch, reference))


def save_table(
    data: Interactions,
    spec: TableSpec,
    config: RecommenderConfig,
    chosen: Chosen,
    tested: Tested,
    folder: Storage,
) -> None:
    """Save the compressed table in a folder, its card.json last."""
    folder.write_table("history.parquet", history_table(chosen.history))
    card = {
        "method": spec.method,
        "target_sparsity": None if spec.target_sparsity is None else float(spec.target_sparsity),
        "seed": spec.seed,
        "flag": spec.flag,
        "epochs": chosen.epoch,
        "trained_on": "train+valid" if tested.refit else "train",
        "seconds": round(tested.seconds, 1),
        **(chosen.trial.described() if chosen.trial is not None else {}),
        "validation": chosen.means,
        "test": tested.metrics.means() | {"quality": tested.metrics.mean_quality()},
        "coverage": _coverage(data, spec, config, tested.metrics),
        **({"search": dict(spec.search)} if spec.search else {}),
    }
    settings = config if chosen.trial is None else chosen.trial.configured(config)
    CompressedTable.from_fit(data, tested.trained_on, settings, spec.mask, tested.final, card).save(folder)


def _coverage(
    data: Interactions, spec: TableSpec, config: RecommenderConfig, metrics: UserMetrics
) -> dict[str, float | int | None]:
    """Which items can be met at all, and over how many users the metrics were taken."""
    sample = evaluated_users(data.n_users, config.evaluate_users)
    return {
        "item_rows": float((row_sizes(spec.mask)[data.n_users :] > 0).mean()),
        "items_in_top_20": metrics.coverage,
        "ranked_users": data.n_users if sample is None else len(sample),
        "test_quality_interval": None if sample is None else metrics.interval(),
    }


def _request(
    data: Interactions,
    spec: TableSpec,
    config: RecommenderConfig,
    trial: Trial,
    stage: str,
    epochs: int | None,
    progress: Storage,
    on_epoch: OnEpoch | None,
    reference: Reference | None,
) -> FitRequest:
    plain = trial.start in (None, FRESH)
    label = stage if plain else f"{stage} {trial.name}"
    return FitRequest(
        trial.configured(config),
        trial.mask(spec.mask, data.n_users),
        spec.seed,
        epochs=epochs,
        evaluate=False,
        initial=trial.weights(data, spec, config, reference),
        decoder=spec.decoder,
        progress=progress if plain else progress.child(trial.name),
        on_epoch=None if on_epoch is None else lambda record: on_epoch(spec.name, label, record),
    )


def test_metrics(trained_on: Interactions, config: RecommenderConfig, result: FitResult) -> UserMetrics:
    """Metrics on test, hiding what the model was trained on. To be called once a table."""
    with cpu_threads(config.threads):
        prepared = prepare(trained_on, resolve_device(config.device))
        recommender = result.recommender
        return prepared.evaluate(
            recommender.score_users, ["train", "valid"], "test", recommender.backbone, config.evaluate_users
        )
