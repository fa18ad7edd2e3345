"""What a mask costs to judge untrained, and what a step of the losses from a good start costs over its floor."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ciess import masks
from ciess.config.recommender import RecommenderConfig
from ciess.config.starts import StartedConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.masks.mask import PrefixMask
from ciess.training.loop import FitRequest, Training
from ciess.training.prepared import Prepared, prepare
from ciess.training.starts.start import Start
from ciess.training.starts.weights import initial_weights, stacked_weights

STACKED = 8
"""Masks side by side."""

SPARSITY = "0.95"
"""Of the masks."""


@dataclass(frozen=True)
class LossBench:
    """Milliseconds of a step, and of what it cannot do without: vectors, scores of its pairs and their gradients."""

    name: str
    step: float
    floor: float


@dataclass(frozen=True)
class StartBench:
    """Medians in seconds.

    Attributes:
        alone: of the start of a mask, one after the other.
        stacked: of the start of a mask, eight at once.
        evaluation: of ranking on validation.
        losses: steps of the losses that go on from a start.
    """

    alone: float
    stacked: float
    evaluation: float
    losses: tuple[LossBench, ...]


def bench_starts(data: Interactions, config: RecommenderConfig, rounds: int) -> StartBench | None:
    """Measure masks of 95 % sparsity, items' rows alone.

    Args:
        data: interactions to train on.
        config: backbone and threads.
        rounds: times that each is measured.

    Returns:
        the figures; None for a backbone whose masks are not judged untrained.
    """
    if config.backbone not in ("lightgcn", "items"):
        return None
    side, exponent = ("items", 0.4) if config.backbone == "items" else ("both", 0.1)
    start = Start("spectral", side, exponent, 0.25, 0.3 if config.backbone == "items" else 0.0)  # type: ignore[arg-type]
    with cpu_threads(config.threads):
        prepared = prepare(data, resolve_device(config.device))
        drawn = _masks(data, config)
        settings = StartedConfig(**{name: getattr(config, name) for name in RecommenderConfig.model_fields})
        prepared.axes(exponent if config.backbone == "items" else 0.5 - exponent, config.max_size)
        alone = _median(
            rounds, lambda: [initial_weights(data, prepared, config, mask, start, 0) for mask in drawn]
        ) / len(drawn)
        stacked = _median(
            rounds, lambda: stacked_weights(data, prepared, config, drawn, [start] * len(drawn), 0)
        ) / len(drawn)
        initial = initial_weights(data, prepared, config, drawn[0], start, 0)
        training = Training(data, FitRequest(config, drawn[0], 0, initial=initial), prepared)
        evaluation = _median(rounds, training.validate)
        losses = tuple(_loss(data, settings, prepared, drawn[0], name, rounds) for name in ("squared", "softmax"))
    return StartBench(alone, stacked, evaluation, losses)


def describe_start_bench(found: StartBench) -> str:
    """The figures as text."""
    judged = found.stacked + found.evaluation
    lines = [
        f"a mask of {100 * float(SPARSITY):g} % judged untrained: {judged:.2f} s (start {found.stacked:.2f} s, "
        f"{STACKED} side by side; alone {found.alone:.2f} s; evaluation {found.evaluation:.2f} s)"
    ]
    lines += [
        f"step of {loss.name}: {loss.step:.0f} ms, {loss.step / loss.floor:.2f} x its floor ({loss.floor:.0f} ms)"
        for loss in found.losses
    ]
    return "\n".join(lines)


def _masks(data: Interactions, config: RecommenderConfig) -> list[PrefixMask]:
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    items = np.maximum(data.item_degrees(), 1).astype(np.float64)
    found = []
    for popularity in np.linspace(0.3, 0.9, STACKED):
        wanted = np.concatenate([np.zeros(data.n_users), items**popularity])
        wanted[: data.n_users][bounds.low[: data.n_users] > 0] = 1e-9
        found.append(masks.project(wanted, config.max_size, SPARSITY, data.degrees(), bounds))
    return found


def _loss(
    data: Interactions, config: StartedConfig, prepared: Prepared, mask: PrefixMask, name: str, rounds: int
) -> LossBench:
    settings = config.gentle_training(name, len(data.train), True)  # type: ignore[arg-type]
    request = FitRequest(config.recommender().model_copy(update={"training": settings}), mask, 0)
    training = Training(data, request, prepared)
    training.begin_epoch(1)
    batch = next(iter(training.batches(1)))
    backbone, graph, history = training.backbone, training.graph, prepared.history

    def floor() -> None:
        table = training.embedding()
        encoded = backbone.encode(table, graph)
        if name == "squared":
            users, items = encoded[: data.n_users], encoded[data.n_users :]
            scores = history.pair_dots(users, items).sum() + (users.T @ users * (items.T @ items)).sum()
        else:
            scores = backbone.cross_scores(encoded, batch.users, batch.negatives).logsumexp(1).sum()
        torch.autograd.grad(scores, list(training.embedding.parameters()))

    return LossBench(name, 1e3 * _median(rounds, lambda: training.step(batch)), 1e3 * _median(rounds, floor))


def _median(rounds: int, run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])
