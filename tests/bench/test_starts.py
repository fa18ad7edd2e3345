"""What judging a mask and stepping from a start cost: medians of what was run, in words."""

import pytest

from ciess.bench.starts import LossBench, StartBench, bench_starts, describe_start_bench
from ciess.data.planted import Planted


@pytest.mark.parametrize("backbone", ["lightgcn", "items"])
def test_everything_is_timed(planted: Planted, small_config, backbone: str) -> None:
    found = bench_starts(planted.data, small_config(backbone, max_size=32), 2)
    assert found is not None
    assert min(found.alone, found.stacked, found.evaluation) > 0
    assert [loss.name for loss in found.losses] == ["squared", "softmax"]
    assert all(loss.step > 0 and loss.floor > 0 for loss in found.losses)


@pytest.mark.parametrize("backbone", ["ngcf", "ncf"])
def test_other_backbones_judge_no_mask_untrained(planted: Planted, small_config, backbone: str) -> None:
    assert bench_starts(planted.data, small_config(backbone), 1) is None


def test_the_words_hold_the_figures() -> None:
    text = describe_start_bench(StartBench(0.5, 0.125, 0.25, (LossBench("squared", 30.0, 20.0),)))
    assert "judged untrained: 0.38 s (start 0.12 s, 8 side by side; alone 0.50 s; evaluation 0.25 s)" in text
    assert "step of squared: 30 ms, 1.50 x its floor (20 ms)" in text
