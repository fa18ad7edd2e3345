"""Train a recommender under a mask: a pure function of data and request (line 10 of Algorithm 1, and section 2.3)."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ciess.config.recommender import TrainingConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.evaluation.metrics import UserMetrics
from ciess.models.chained_embedding import ChainedEmbedding
from ciess.training.checkpoint import FitCheckpoint, TrainingState
from ciess.training.history import EpochRecord
from ciess.training.loop import FitRequest, Recommender, Training
from ciess.training.prepared import prepare


@dataclass(frozen=True, eq=False)
class FitResult:
    """A trained model and how it got there.

    Attributes:
        table: float32[n, tables * width], masked.
        weights: the backbone's other parameters by name, and `decoder.`..., those of a chain that maps the table's rows
            to one size.
        recommender: the model, ready to score.
        validation: metrics of the returned weights on validation, None where it was not evaluated.
        epochs: number of epochs trained.
        best_epoch: the one whose weights these are.
        history: every epoch, in order.
        fit_seconds: of training.
        evaluation_seconds: of ranking on validation.
    """

    table: npt.NDArray[np.float32]
    weights: dict[str, npt.NDArray[np.float32]]
    recommender: Recommender
    validation: UserMetrics | None
    epochs: int
    best_epoch: int
    history: tuple[EpochRecord, ...]
    fit_seconds: float
    evaluation_seconds: float


def fit(data: Interactions, request: FitRequest) -> FitResult:
    """Train on data.train and, where asked, evaluate on data.valid (line 10 of Algorithm 1, section 2.3).

    Equal data, request and thread count give equal bits on a CPU.

    Args:
        data: interactions with n users and items.
        request: what to train; its arrays are float32[n, ...].

    Returns:
        the trained model.

    Raises:
        DataError: a full training on data without validation pairs.
        FitError: a loss is not finite, or the mask leaves nothing to train.
        InputError: the device is not there, or initial weights have names that the backbone does not know.
        RunDirectoryError: the checkpoint of another request.
    """
    device = resolve_device(request.config.device)
    with cpu_threads(request.config.threads):
        prepared = prepare(data, device)
        start = time.perf_counter()
        training = Training(data, request, prepared)
        history, best_epoch, validation = _train(data, request, training)
        if validation is None and (request.evaluate or request.epochs is None):
            validation = training.validate()
        recommender = training.recommender()
        embedding, named = training.embedding, dict(training.backbone.named_parameters())
        with torch.no_grad():
            stored = embedding.weight if isinstance(embedding, ChainedEmbedding) else embedding()
            table = stored.detach().cpu().numpy()
            if training.first_row and len(table) < data.n:
                whole = np.zeros((data.n, table.shape[1]), np.float32)
                whole[training.first_row :] = table
                table = whole
        parameters = named | (embedding.decoder_weights() if isinstance(embedding, ChainedEmbedding) else {})
        weights = {name: value.detach().cpu().numpy() for name, value in parameters.items()}
        seconds = time.perf_counter() - start
    return FitResult(
        table=table,
        weights=weights,
        recommender=recommender,
        validation=validation,
        epochs=history[-1].epoch if history else 0,
        best_epoch=best_epoch,
        history=history,
        fit_seconds=seconds - training.evaluation_seconds,
        evaluation_seconds=training.evaluation_seconds,
    )


def _train(
    data: Interactions, request: FitRequest, training: Training
) -> tuple[tuple[EpochRecord, ...], int, UserMetrics | None]:
    """Train for the epochs of the request, or until validation stops to improve; the best weights are then in place.

    The start is one of the epochs to choose from, number 0. Returns the epochs, the number of the chosen one, and its
    metrics where this sitting evaluated it.
    """
    settings = request.config.training
    if request.epochs is None:
        data.require("valid")
    last_epoch = settings.max_epochs if request.epochs is None else request.epochs
    checkpoint = FitCheckpoint(
        request.progress, request.fingerprint(data), training.embedding, training.backbone, training.optimizer
    )
    state = checkpoint.load()
    metrics: UserMetrics | None = None
    if state.epoch == 0 and request.epochs is None:
        metrics = training.validate()
        state.best_quality = _score(metrics, request)
        state.history.append(EpochRecord(0, None, state.best_quality))
        checkpoint.keep_best()
        if request.on_epoch is not None:
            request.on_epoch(state.history[-1])
    pause = last_epoch if request.until is None else min(request.until, last_epoch)
    while state.epoch < pause and not (request.epochs is None and _stalled(state, settings)):
        state.epoch += 1
        loss = training.epoch(state.epoch)
        due = state.epoch % settings.evaluate_every == 0 or state.epoch == last_epoch
        now = training.validate() if due and request.epochs is None else None
        quality = None if now is None else _score(now, request)
        record = EpochRecord(state.epoch, loss, quality)
        state.history.append(record)
        if quality is not None and quality > state.best_quality:
            state.best_quality, state.best_epoch, metrics = quality, state.epoch, now
            checkpoint.keep_best()
        if due:
            checkpoint.save(state)
        if request.on_epoch is not None:
            request.on_epoch(record)
    checkpoint.restore_best()
    return tuple(state.history), state.epoch if request.epochs is not None else state.best_epoch, metrics


def _score(metrics: UserMetrics, request: FitRequest) -> float:
    """The mean of Eq. 8 by which epochs are chosen."""
    return (metrics.parts[1] if request.choose_by_half else metrics).mean_quality()


def _stalled(state: TrainingState, settings: TrainingConfig) -> bool:
    """Whether the last `patience` evaluations brought nothing better."""
    return state.epoch - state.best_epoch >= settings.patience * settings.evaluate_every
