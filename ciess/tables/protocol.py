"""From masks to tested tables, by one protocol for every method (line 17 of Algorithm 1, section 2.3).

Train on training data until validation stops to improve, choose the epoch there; train anew on training and validation
data for as many epochs; rank on test once; save the compressed table.
"""

from collections.abc import Callable

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.evaluation.metrics import UserMetrics, evaluate
from ciess.storage.storage import Storage
from ciess.tables.results import Chosen, TableResult, Tested, record_results, table_result
from ciess.tables.spec import TableSpec
from ciess.tables.table import CompressedTable
from ciess.training.fit import FitResult, fit
from ciess.training.history import EpochRecord, history_table
from ciess.training.loop import FitRequest
from ciess.training.prepared import prepare

OnEpoch = Callable[[str, str, EpochRecord], None]
"""Called with (table name, `choose` or `refit`, record) after every epoch."""


def train_and_choose(
    data: Interactions,
    spec: TableSpec,
    config: RecommenderConfig,
    progress: Storage,
    on_epoch: OnEpoch | None = None,
) -> Chosen:
    """Train on the training part until validation stops to improve; progress: folder of its checkpoint.

    A training whose checkpoint is complete is not trained again. Raises
    FitError for a loss that is not finite.
    """
    result = fit(data, _request(spec, config, "choose", None, progress, on_epoch))
    assert result.validation is not None
    means = result.validation.means() | {"quality": result.validation.mean_quality()}
    seconds = result.fit_seconds + result.evaluation_seconds
    quality = result.validation.quality()
    return Chosen(quality, means, result.best_epoch, result.history, seconds, result)


def train_table(
    data: Interactions,
    spec: TableSpec,
    config: RecommenderConfig,
    run: Storage,
    refit: bool = True,
    on_epoch: OnEpoch | None = None,
    progress: Storage | None = None,
    chosen: Chosen | None = None,
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

    Raises:
        FitError: a loss that is not finite.
    """
    folder = progress or run.child("progress", spec.name)
    if chosen is None or (chosen.result is None and not refit):
        chosen = train_and_choose(data, spec, config, folder, on_epoch)
    tested = test_once(data, spec, config, chosen, folder, refit, on_epoch)
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

    Raises:
        FitError: a loss that is not finite.
    """
    trained_on, final, seconds = data, chosen.result, chosen.seconds
    if refit:
        trained_on = data.merged()
        final = fit(trained_on, _request(spec, config, "refit", chosen.epoch, progress, on_epoch))
        seconds += final.fit_seconds
    assert final is not None
    return Tested(final, trained_on, test_metrics(trained_on, config, final), seconds, refit)


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
        "validation": chosen.means,
        "test": tested.metrics.means() | {"quality": tested.metrics.mean_quality()},
        **({"search": dict(spec.search)} if spec.search else {}),
    }
    CompressedTable.from_fit(data, tested.trained_on, config, spec.mask, tested.final, card).save(folder)


def _request(
    spec: TableSpec,
    config: RecommenderConfig,
    stage: str,
    epochs: int | None,
    progress: Storage,
    on_epoch: OnEpoch | None,
) -> FitRequest:
    return FitRequest(
        config,
        spec.mask,
        spec.seed,
        epochs=epochs,
        evaluate=False,
        initial=spec.initial,
        decoder=spec.decoder,
        progress=progress.child(stage),
        on_epoch=None if on_epoch is None else lambda record: on_epoch(spec.name, stage, record),
    )


def test_metrics(trained_on: Interactions, config: RecommenderConfig, result: FitResult) -> UserMetrics:
    """Metrics on test, hiding what the model was trained on. To be called once a table."""
    with cpu_threads(config.threads):
        prepared = prepare(trained_on, resolve_device(config.device))
        return evaluate(
            result.recommender.score_users,
            [prepared.lookup("train"), prepared.lookup("valid")],
            prepared.lookup("test"),
            result.recommender.backbone.floats_per_score,
        )
