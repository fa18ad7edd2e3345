from collections.abc import Callable
from pathlib import Path

from ciess.config.recommender import RecommenderConfig

Ciess = Callable[..., tuple[int, str, str]]


def test_bench(ciess: Ciess, ratings: Path, columns: list[str]) -> None:
    status, out, err = ciess(
        "bench", ratings, *columns, "--rounds", "1", "--max-size", "16", "--threads", "1", "--device", "cpu"
    )
    assert (status, err) == (0, "")
    assert out.startswith("lightgcn on ratings: ")
    for figure in ("step / floor", "COO / step", "search min"):
        assert figure in out
    assert RecommenderConfig().training.batch_size == 10_000
    assert "batch 10,000, 1 threads, cpu" in out
