"""`ciess bench --run`: what the short fits of a search should cost at the widths it had, and what they took."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.errors import RunDirectoryError
from ciess.runs.directory import check_data, read_config, read_visited
from ciess.runs.progress import duration
from ciess.runs.search import open_reference
from ciess.search.proposals import Proposal
from ciess.search.short_fit import short_fit_request, starting_weights
from ciess.storage.columns import HISTORY
from ciess.storage.storage import Storage, read_columns
from ciess.training.loop import FitRequest, Training
from ciess.training.losses import Batch
from ciess.training.prepared import Prepared, prepare

REPEATS = 3
"""Times that what is not a step is measured."""

WIDTHS = (1, 8, 16, 32, 48, 64, 96, 128)
"""Columns at which a step and an evaluation are timed; what lies between is interpolated."""


@dataclass(frozen=True)
class SearchBench:
    """Short fits of a search with their evaluations, in order.

    Attributes:
        widths: largest size of each.
        estimated: seconds that each should take at its width.
        taken: seconds that each took.
        agent: seconds of agents and checkpoints of all iterations.
    """

    widths: tuple[int, ...]
    estimated: tuple[float, ...]
    taken: tuple[float, ...]
    agent: float


def bench_search(data: Interactions, run: Storage, rounds: int = 15) -> SearchBench:
    """Time steps at a few widths and compare with the iterations of the search in a run directory.

    Args:
        data: what the search was run on.
        run: its run directory.
        rounds: times that a step is timed at each width.

    Returns:
        seconds of every short fit, estimated and taken.

    Raises:
        RunDirectoryError: a folder without a search, or of other data.
    """
    config, _ = read_config(run)
    check_data(run, data)
    visited = read_visited(run, config)
    history = read_columns(run, "history.parquet", HISTORY).to_pylist()
    by_place = {(row["lane"], row["episode"], row["iteration"]): row for row in history}
    fits = [candidate for candidate in visited if candidate.origin == "search"]
    fits = [fit for fit in fits if (fit.lane, fit.episode, fit.iteration) in by_place]
    if not fits:
        raise RunDirectoryError(
            f"{run.root} holds no iteration in both history.parquet and candidates.parquet; at least one was expected. "
            "Go on with `ciess search ... --resume` first."
        )
    rows = [by_place[(fit.lane, fit.episode, fit.iteration)] for fit in fits]
    widths = tuple(fit.mask.width for fit in fits)
    start = starting_weights(config, open_reference(data, config, run).weights)
    return SearchBench(
        widths=widths,
        estimated=tuple(short_fit_seconds(data, config, widths, rounds, start).tolist()),
        taken=tuple(row["fit_seconds"] + row["evaluation_seconds"] for row in rows),
        agent=sum(row["agent_seconds"] + row["checkpoint_seconds"] for row in rows),
    )


def short_fit_seconds(
    data: Interactions, config: SearchConfig, widths: tuple[int, ...], rounds: int, start: Mapping[str, Tensor]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Estimated seconds of a short fit and its evaluation at each width, float64; start: as for `short_fit`."""
    timed = sorted({min(width, config.max_size) for width in WIDTHS} | {config.max_size})
    timed = [width for width in timed if width <= max(widths)] + [width for width in timed if width > max(widths)][:1]
    with cpu_threads(config.threads):
        prepared = prepare(data, resolve_device(config.device))
        seconds = []
        for width in timed:
            # Sizes spread below the width, as a search's are: masks of one size would flatter.
            sizes = np.resize(np.arange(1, width + 1, dtype=np.int16), data.n)
            request = partial(short_fit_request, data, config, Proposal(0, 1, 1, sizes), start)
            seconds.append(_short_fit_seconds(data, request, prepared, rounds))
    return np.interp(widths, timed, seconds)


def _short_fit_seconds(data: Interactions, request: Callable[[], FitRequest], prepared: Prepared, rounds: int) -> float:
    """Of building a training, its epochs with their samples, and an evaluation: medians, put together."""
    epochs, settings = request().epochs, request().config.training
    spent: dict[str, list[float]] = {"build": [], "sample": [], "step": [], "evaluate": []}

    def timed(part: str, run: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = run()
        spent[part].append(time.perf_counter() - begun)
        return result

    for number in range(1, REPEATS + 1):
        training = timed("build", lambda: Training(data, request(), prepared))
        epoch = partial(prepared.sampler.epoch, 0, number, settings.batch_size, settings.sampling)
        batches = timed("sample", epoch)
    training.begin_epoch(1)
    count = len(batches.users)
    for number in range(rounds + 2):
        batch = number % count
        triple = Batch(batches.users[batch], batches.positives[batch], batches.negatives[batch])
        timed("step", partial(training.step, triple))
    for _ in range(REPEATS):
        timed("evaluate", training.validate)
    build, sample, step, evaluation = (float(np.median(values)) for values in spent.values())
    assert epochs is not None
    return build + epochs * (sample + count * step) + evaluation


def describe_search_bench(found: SearchBench) -> str:
    """The comparison in words."""
    estimated, taken = sum(found.estimated), sum(found.taken)
    return (
        f"{len(found.widths)} short fits at widths {min(found.widths)} to {max(found.widths)}: estimated "
        f"{duration(estimated)} at these widths, taken {duration(taken)} ({taken / estimated:.2f} x); agents and "
        f"checkpoints {duration(found.agent)}, {found.agent / (taken + found.agent):.1%} of all; 300 such iterations: "
        f"{duration((taken + found.agent) / len(found.widths) * 300)}"
    )
