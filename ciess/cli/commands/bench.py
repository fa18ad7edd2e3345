"""`ciess bench`."""

from typing import Annotated

from ciess.cli.options import READING, DataPath, Flat, read_noted
from ciess.config.data import DataConfig
from ciess.config.recommender import RecommenderConfig


def bench(
    path: DataPath,
    config: Annotated[RecommenderConfig, Flat],
    options: Annotated[DataConfig, Flat] = READING,
    rounds: int = 15,
    run: str | None = None,
) -> None:
    """What a training step costs here, where it goes, how far it is from its floor, and what a mask costs to judge.

    Args:
        path: file, folder or zip archive with interactions; `planted` is a small embedded set.
        config: what to measure.
        options: how to read the data.
        rounds: times each variant is measured.
        run: run directory of a search: compare what its short fits took with what they should, instead.
    """
    from ciess.bench.starts import bench_starts, describe_start_bench
    from ciess.bench.step import bench as measure
    from ciess.bench.step import bench_report

    interactions = read_noted(path, options)
    if run is not None:
        from ciess.bench.search import bench_search, describe_search_bench
        from ciess.storage.storage import Storage

        print(describe_search_bench(bench_search(interactions, Storage(run), rounds)))
        return
    print(bench_report(interactions, config, measure(interactions, config, rounds)))
    if (found := bench_starts(interactions, config, max(1, rounds // 3))) is not None:
        print("", describe_start_bench(found), sep="\n")
