"""`ciess bench`: what a training step costs, where it goes, and how far it is from its floor.

The floor of a step is its products with the adjacency alone, by the fastest kernel and block width measured here.
All variants are timed in turn, round by round, so that a change of the machine's speed meets all of them; figures are
medians over the rounds.
"""

import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ciess import masks
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.errors import InputError
from ciess.masks.mask import PrefixMask
from ciess.models.graph import Graph
from ciess.training.loop import FitRequest, Training
from ciess.training.losses import Batch
from ciess.training.prepared import Prepared, prepare

BLOCKS = (16, 32, 64, 128)
"""Columns a block in the floor."""

SHORT_EPOCHS = 5
"""Epochs of the fit in each iteration of a search (section 2.3)."""

EVALUATIONS = 3
"""Evaluations on validation that are timed."""

SEARCH_FITS = 30 * 10
"""Fits of a search of 30 episodes of 10 iterations (section 3.3)."""


@dataclass(frozen=True)
class SizeBench:
    """Figures at one choice of sizes: medians in milliseconds, evaluation in seconds.

    Attributes:
        name: of the sizes.
        width: columns that hold any kept entry.
        sparsity: share of the table that is removed.
        step: of the optimiser, everything included.
        sampling: of the triples of a step.
        propagation: all products of a step; 0 for a backbone without a graph.
        optimiser: Adam alone.
        kernels: all products of a step by kernel and block width; empty for a backbone without a graph.
        plain: step of the plain versions by name, for LightGCN.
        evaluation: on validation, in seconds.
        steps_an_epoch: ceil(training pairs / batch size).
        peak_memory: MiB of this process after steps and an evaluation, before anything else is measured at these sizes.
    """

    name: str
    width: int
    sparsity: float
    step: float
    sampling: float
    propagation: float
    optimiser: float
    kernels: dict[str, float]
    plain: dict[str, float]
    evaluation: float
    steps_an_epoch: int
    peak_memory: float

    @property
    def floor(self) -> float:
        """Milliseconds of the products alone."""
        return min(self.kernels.values(), default=0.0)

    @property
    def short_training(self) -> float:
        """Seconds of a short fit without its evaluation, estimated."""
        return SHORT_EPOCHS * self.steps_an_epoch * (self.step + self.sampling) / 1e3

    @property
    def short_fit(self) -> float:
        """Seconds of a short fit and its evaluation, estimated."""
        return self.short_training + self.evaluation


def bench(data: Interactions, config: RecommenderConfig, rounds: int = 15) -> list[SizeBench]:
    """Measure at full sizes, equal sizes at 90 % and mixed sizes at 90 %.

    Args:
        data: interactions to train on.
        config: backbone, training and threads.
        rounds: times that each variant is measured.

    Returns:
        the figures of each choice of sizes.

    Raises:
        InputError: rounds is below 1, or the device is not there.
    """
    if rounds < 1:
        raise InputError(f"rounds is {rounds}, but each variant must be measured once or more. Choose such a number.")
    device = resolve_device(config.device)
    chosen = {
        "full": masks.full(data.n, config.max_size),
        "equal 90 %": masks.equal(data.n, config.max_size, "0.9"),
        "mixed 90 %": masks.mixed(data.n, config.max_size, "0.9", seed=0),
    }
    with cpu_threads(config.threads):
        prepared = prepare(data, device)
        return [_bench_sizes(name, data, config, mask, prepared, rounds) for name, mask in chosen.items()]


def _bench_sizes(
    name: str, data: Interactions, config: RecommenderConfig, mask: PrefixMask, prepared: Prepared, rounds: int
) -> SizeBench:
    training = Training(data, FitRequest(config, mask, seed=0), prepared)
    settings = config.training
    batches = prepared.sampler.epoch(0, 1, settings.batch_size, settings.sampling)
    steps = len(batches.users)
    training.begin_epoch(1)

    def step(number: int) -> None:
        batch = number % steps
        training.step(Batch(batches.users[batch], batches.positives[batch], batches.negatives[batch]))

    step(0)
    step(1)
    evaluations = []
    for _ in range(EVALUATIONS):
        start = time.perf_counter()
        training.validate()
        evaluations.append(time.perf_counter() - start)
    peak_memory = peak_memory_mib(prepared.device)
    training.begin_epoch(1)
    timed: dict[str, Callable[[int], object]] = {"step": step}
    timed["sampling"] = lambda number: prepared.sampler.epoch(0, number, settings.batch_size, settings.sampling)
    timed["optimiser"] = lambda number: training.optimizer.step()
    layers = getattr(config.model, "layers", 0)
    if training.graph is not None:
        timed["propagation"] = _propagation(training, config, mask.width, layers)
        timed |= _kernels(training.graph, mask.width, layers, config)
    if config.backbone == "lightgcn":
        timed |= _plain_steps(training, config, layers, batches)
    medians = _medians(timed, rounds, prepared.device)
    return SizeBench(
        name=name,
        width=mask.width,
        sparsity=float(masks.sparsity(mask)),
        step=medians["step"],
        sampling=medians["sampling"] / steps,
        propagation=medians.get("propagation", 0.0),
        optimiser=medians["optimiser"],
        kernels={key[7:]: value for key, value in medians.items() if key.startswith("kernel ")},
        plain={key[6:]: value for key, value in medians.items() if key.startswith("plain ")},
        evaluation=float(np.median(evaluations)),
        steps_an_epoch=steps,
        peak_memory=peak_memory,
    )


def _medians(timed: dict[str, Callable[[int], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median milliseconds of each, one call of each a round, after a warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, run in timed.items():
            _synchronise(device)
            start = time.perf_counter()
            run(number)
            _synchronise(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(values[1:])) for name, values in seconds.items()}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _widths(config: RecommenderConfig, width: int, layers: int) -> list[int]:
    """Columns of each product of a forward pass."""
    inner = config.model.width if config.backbone == "ngcf" else width  # type: ignore[union-attr]
    return [width] + [inner] * (layers - 1)


def _propagation(training: Training, config: RecommenderConfig, width: int, layers: int) -> Callable[[int], object]:
    """All products of a step as the backbone does them."""
    graph = training.graph
    assert graph is not None
    tables = [torch.randn(graph.n, columns, device=graph.device) for columns in _widths(config, width, layers)]

    def run(number: int) -> None:
        if config.backbone == "lightgcn":
            graph.average(tables[0], layers)
            graph.average(tables[0], layers)
            return
        for table in tables * 2:
            graph.multiply(table)

    return run


def _kernels(graph: Graph, width: int, layers: int, config: RecommenderConfig) -> dict[str, Callable[[int], object]]:
    """All products of a step, forward and backward, by each kernel and block width."""
    widths = _widths(config, width, layers) * 2
    wide = _wide(graph)
    products: dict[str, Callable[[Tensor], Tensor]] = {"csr int32": lambda x: graph.matrix @ x}
    if graph.device.type == "cpu":
        products["csr int64 sum"] = lambda x: torch.sparse.mm(wide, x, "sum")
    kernels: dict[str, Callable[[int], object]] = {}
    for block in BLOCKS:
        if block >= 2 * max(widths) and block > BLOCKS[0]:
            continue
        parts = [
            torch.randn(graph.n, min(block, columns - first), device=graph.device)
            for columns in widths
            for first in range(0, columns, block)
        ]
        for name, product in products.items():
            kernels[f"kernel {name}, blocks of {block}"] = partial(_multiply_all, product, parts)
    return kernels


def _wide(graph: Graph) -> Tensor:
    """The adjacency with indices of int64, as it is usually written."""
    crow, columns, values = graph.matrix.crow_indices().long(), graph.matrix.col_indices().long(), graph.matrix.values()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(crow, columns, values, (graph.n,) * 2, check_invariants=False)


def _multiply_all(product: Callable[[Tensor], Tensor], parts: list[Tensor], number: int) -> None:
    for part in parts:
        product(part)


def _plain_steps(
    training: Training, config: RecommenderConfig, layers: int, batches: Any
) -> dict[str, Callable[[int], object]]:
    """A LightGCN step as it is usually written: one table, row indexing, a sparse product under autograd, Adam."""
    graph = training.graph
    assert graph is not None
    wide = _wide(graph)
    coordinates = graph.matrix.to_sparse_coo().coalesce()
    n_users, decay = training.backbone.n_users, config.training.decay

    def make(adjacency: Tensor) -> Callable[[int], object]:
        table = torch.nn.Parameter(training.embedding().detach().clone())
        optimizer = torch.optim.Adam([table], lr=config.training.learning_rate)

        def run(number: int) -> None:
            batch = number % len(batches.users)
            users = batches.users[batch]
            positives, negatives = batches.positives[batch] + n_users, batches.negatives[batch] + n_users
            optimizer.zero_grad()
            vectors: list[Tensor] = [table]
            for _ in range(layers):
                vectors.append(torch.sparse.mm(adjacency, vectors[-1]))
            final = torch.stack(vectors).mean(0)
            margin = (final[users] * final[positives]).sum(1) - (final[users] * final[negatives]).sum(1)
            norms = sum(table[rows].square().sum() for rows in (users, positives, negatives))
            loss = functional.softplus(-margin).mean() + 0.5 * decay / len(users) * norms
            loss.backward()
            optimizer.step()

        return run

    return {"plain CSR int64": make(wide), "plain COO": make(coordinates)}


def peak_memory_mib(device: torch.device) -> float:
    """Largest memory of this process so far: resident on the CPU, allocated on CUDA."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def bench_report(data: Interactions, config: RecommenderConfig, sizes: list[SizeBench]) -> str:
    """The figures as text, ratios first."""
    full = sizes[0]
    columns = [_figures(size, full) for size in sizes]
    lines = [
        f"{config.backbone} on {data.name}: n = {data.n:,}, {len(data.train):,} training pairs, batch "
        f"{config.training.batch_size:,}, {config.threads} threads, {resolve_device(config.device).type}",
        "",
        *(f"{name:<32}" + "".join(f"{column[name]:>14}" for column in columns) for name in columns[0]),
        "",
        f"short fit: {SHORT_EPOCHS} epochs and an evaluation; search: {SEARCH_FITS} short fits; both estimated. Shares "
        "are of a step with its sampling.",
        f"peak memory of steps and evaluations at full sizes: {full.peak_memory:,.0f} MiB",
    ]
    for size in sizes:
        if size.kernels:
            lines += ["", f"{size.name}: all products of a step, ms"]
            lines += [f"  {name:<32}{value:>9.2f}" for name, value in sorted(size.kernels.items(), key=lambda x: x[1])]
    return "\n".join(lines)


def _figures(size: SizeBench, full: SizeBench) -> dict[str, str]:
    """Name of a figure -> its text, for one choice of sizes."""
    total = size.step + size.sampling
    rest = size.step - size.propagation - size.optimiser
    return {
        "": size.name,
        "columns": str(size.width),
        "step / floor": f"{size.step / size.floor:.2f}" if size.kernels else "-",
        "step / full step": f"{size.step / full.step:.2f}",
        **{f"{name} / step": f"{value / size.step:.2f}" for name, value in size.plain.items()},
        "evaluation / full step": f"{1e3 * size.evaluation / full.step:.2f}",
        "evaluation / short training": f"{size.evaluation / size.short_training:.3f}",
        "sampling": f"{size.sampling / total:.1%}",
        "propagation": f"{size.propagation / total:.1%}",
        "optimiser": f"{size.optimiser / total:.1%}",
        "rest": f"{rest / total:.1%}",
        "step ms": f"{size.step:.2f}",
        "floor ms": f"{size.floor:.2f}" if size.kernels else "-",
        "evaluation s": f"{size.evaluation:.2f}",
        "short fit s": f"{size.short_fit:.1f}",
        "search min": f"{SEARCH_FITS * size.short_fit / 60:.1f}",
    }
