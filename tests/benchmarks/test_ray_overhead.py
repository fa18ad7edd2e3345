import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ciess.search.proposals import Proposal

PATH = Path(__file__).parents[2] / "benchmarks" / "ray_overhead.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ray_overhead", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up by name.
    sys.modules["ray_overhead"] = module
    spec.loader.exec_module(module)
    return module


def test_medians_and_every_value(bench: ModuleType) -> None:
    shares = [bench.Share(start, search, 0.5, share) for start, search, share in ((7, 80, 0.01), (9, 90, 0.03))]
    text = bench.describe(shares, [bench.SpeedUp(1.6, 2.0)])
    assert text.splitlines() == [
        "start until the first fit: median 8.0 s of 7.0 s, 9.0 s",
        "search: median 85.0 s of 80.0 s, 90.0 s",
        "after the last fit: median 0.5 s of 0.5 s, 0.5 s",
        "Ray's share of the search: median 2.00 % of 1.00 %, 3.00 %",
        "speed-up of two workers: median 1.60 of 1.60",
        "speed-up of two bare processes: median 2.00 of 2.00",
        "the one over the other: median 0.800 of 0.800",
    ]


def test_processes_share_the_lanes_of_each_round(bench: ModuleType) -> None:
    config = bench.SearchConfig(lanes=2, episodes=2)
    fits = [Proposal(lane, lane + 1, step, np.ones(3, np.int16)) for step in (1, 2) for lane in (0, 1)]
    shares = [bench._share_of(fits, config, 2, rank) for rank in (0, 1)]
    assert [[[p.slot for p in each] for each in share] for share in shares] == [
        [[(0, 1, 1)], [(0, 1, 2)]],
        [[(1, 2, 1)], [(1, 2, 2)]],
    ]


def test_values_are_added_to_those_that_are_there(bench: ModuleType, tmp_path: Path) -> None:
    path, config = tmp_path / "rows.csv", bench.SearchConfig()
    for start in (7.0, 8.0):
        bench._record(path, "planted", config, [bench.Share(start, 80.0, 0.5, 0.01)], [bench.SpeedUp(1.6, 2.0)])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["data"], row["start"], row["ray"]) for row in rows] == [
        ("planted", "7.0", "1.6"),
        ("planted", "8.0", "1.6"),
    ]
