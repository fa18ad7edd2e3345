"""What Ray costs a search, and what a second worker brings: measured beside the same fits without Ray.

python benchmarks/ray_overhead.py ml-1m/ratings.dat
"""

import csv
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow.compute as pc
import tyro

from ciess.cluster.config import ClusterConfig
from ciess.cluster.search import search_on_cluster
from ciess.cluster.shared_data import SharedData
from ciess.cluster.sweep.command import connect
from ciess.config.data import DataConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.source import read_source
from ciess.runs.directory import open_run
from ciess.search.candidates import from_table
from ciess.search.proposals import Proposal
from ciess.search.reference import read_lent_reference, train_reference
from ciess.search.short_fit import short_fit, starting_weights
from ciess.storage.storage import Storage

WORK = ("fit_seconds", "evaluation_seconds", "agent_seconds")
"""Columns of history.parquet that are the search's own; all other time of its wall clock is Ray's share."""


@dataclass(frozen=True)
class Share:
    """A search with one worker.

    Attributes:
        start: seconds before the first fit.
        search: seconds from there to the last fit.
        end: seconds after it.
        share: of `search` that went into asking, telling, waiting and checkpoints.
    """

    start: float
    search: float
    end: float
    share: float


@dataclass(frozen=True)
class SpeedUp:
    """What two do over one.

    Attributes:
        ray: of two workers.
        bare: of two processes that run the same fits, without Ray.
    """

    ray: float
    bare: float


def bench_share(
    data: Interactions, config: SearchConfig, lender: Storage, folder: Storage, rounds: int = 3
) -> list[Share]:
    """Searches of one worker, without equal sizes. lender: run directory with the reference; folder: for the runs."""
    found = []
    for number in range(rounds):
        run = folder.child(f"share-{number}")
        seconds = _searched(data, _plain(config), lender, run, 1)
        history = run.read_table("history.parquet")
        # The first proposals are made before the first worker asks.
        own = sum(pc.sum(history[name]).as_py() for name in WORK) - history["propose_seconds"][0].as_py()
        found.append(Share(seconds["start"], seconds["search"], seconds["end"], 1 - own / seconds["search"]))
        run.delete()
    return found


def bench_speed_up(
    data: Interactions, config: SearchConfig, lender: Storage, folder: Storage, rounds: int = 3
) -> list[SpeedUp]:
    """Searches of two lanes by one worker and by two, and bare processes with the same fits, in turn."""
    config, found = _plain(config), []
    if config.lanes != 2:
        config = config.model_copy(update={"lanes": 2, "episodes": 2})
    for number in range(rounds):
        seconds = []
        for workers in (1, 2):
            run = folder.child(f"workers-{number}-{workers}")
            seconds.append(_searched(data, config, lender, run, workers)["search"])
        bare = [_bare(data, config, run, processes) for processes in (1, 2)]
        found.append(SpeedUp(seconds[0] / seconds[1], bare[0] / bare[1]))
    return found


def describe(shares: list[Share], speed_ups: list[SpeedUp]) -> str:
    """Medians, and every value after them."""

    def line(name: str, values: list[float], form: Callable[[float], str]) -> str:
        return f"{name}: median {form(statistics.median(values))} of {', '.join(map(form, values))}"

    ratios = [one.ray / one.bare for one in speed_ups]
    return "\n".join(
        [
            line("start until the first fit", [one.start for one in shares], lambda value: f"{value:.1f} s"),
            line("search", [one.search for one in shares], lambda value: f"{value:.1f} s"),
            line("after the last fit", [one.end for one in shares], lambda value: f"{value:.1f} s"),
            line("Ray's share of the search", [one.share for one in shares], lambda value: f"{100 * value:.2f} %"),
            line("speed-up of two workers", [one.ray for one in speed_ups], lambda value: f"{value:.2f}"),
            line("speed-up of two bare processes", [one.bare for one in speed_ups], lambda value: f"{value:.2f}"),
            line("the one over the other", ratios, lambda value: f"{value:.3f}"),
        ]
    )


def _plain(config: SearchConfig) -> SearchConfig:
    return config.model_copy(update={"include_equal": False})


def _searched(
    data: Interactions, config: SearchConfig, lender: Storage, run: Storage, workers: int
) -> dict[str, float]:
    run.delete()
    open_run(run, data, config, DataConfig())
    for name, content in read_lent_reference(data, config.started(), config.seed, lender).items():
        run.child("reference").write_bytes(name, content)
    shared = SharedData.of(data, DataConfig(), "driver")
    return search_on_cluster(shared, config, run, ClusterConfig(workers_per_search=workers), name="bench")


def _bare(data: Interactions, config: SearchConfig, run: Storage, processes: int) -> float:
    """Seconds of the fits of a finished search, round by round, its lanes shared by so many processes."""
    visited = from_table(run.read_table("candidates.parquet"), config.max_size)
    proposals = [Proposal(c.lane, c.episode, c.iteration, c.mask.sizes) for c in visited]
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    workers = [
        context.Process(target=_fits, args=(data, config, run, _share_of(proposals, config, processes, rank), barrier))
        for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - start


def _share_of(proposals: list[Proposal], config: SearchConfig, processes: int, rank: int) -> list[list[Proposal]]:
    """Rounds of the proposals that a process fits: in each, those of its lanes."""
    rounds = [proposals[start : start + config.lanes] for start in range(0, len(proposals), config.lanes)]
    return [[proposal for proposal in each if proposal.lane % processes == rank] for each in rounds]


def _fits(data: Interactions, config: SearchConfig, run: Storage, rounds: list[list[Proposal]], barrier: Any) -> None:
    found = train_reference(data, config.started(), config.seed, run.child("reference"))
    start = starting_weights(config, found.weights)
    barrier.wait()
    for each in rounds:
        for proposal in each:
            short_fit(data, config, proposal, start)


def main(
    source: Annotated[str, tyro.conf.Positional],
    folder: str = "runs/ray_overhead",
    rounds: int = 3,
    iterations: int = 10,
    max_size: int = 128,
    record: str | None = None,
) -> None:
    """Measure on a Ray cluster of this machine and print medians with every value.

    Args:
        source: where the interactions are, or `planted`.
        folder: for the reference, which is kept, and the runs, which go.
        rounds: searches of each kind.
        iterations: of a search of one episode a lane.
        max_size: columns of the full table.
        record: CSV file to which the values are added, such as docs/measurements/ray_overhead.csv.
    """
    data = read_source(source, DataConfig())
    # No equal sizes are fitted, so that the budget costs nothing; it must only be one that tables of few columns keep.
    config = SearchConfig(episodes=1, iterations=iterations, max_size=max_size, threads=1, sparsities=(0.5,))
    runs = Storage(folder)
    lender = runs.child("lender")
    train_reference(data, config.started(), config.seed, lender.child("reference"))
    connect(None)
    shares = bench_share(data, config, lender, runs, rounds)
    speed_ups = bench_speed_up(data, config, lender, runs, rounds)
    print(describe(shares, speed_ups))
    if record is not None:
        _record(Path(record), data.name, config, shares, speed_ups)


def _record(path: Path, name: str, config: SearchConfig, shares: list[Share], speed_ups: list[SpeedUp]) -> None:
    """Add a row a round."""
    about = {"data": name, "iterations": config.iterations, "max_size": config.max_size}
    rows = [about | asdict(share) | asdict(pair) for share, pair in zip(shares, speed_ups, strict=True)]
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    tyro.cli(main)
