import io
import re
import sys
from typing import Any

import pytest

from ciess.runs import progress as search_progress
from ciess.runs.progress import SearchProgress, TrainingProgress, describe_round, duration
from ciess.training.history import EpochRecord


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def row(lane: int, **changes: float) -> dict[str, Any]:
    plain = {
        **{"episode": 3 + lane, "iteration": 2, "lane": lane, "sparsity": 0.5, "quality": 0.25, "quality_ratio": 0.75},
        **{"users_size": 8.0, "items_size": 4.0, "users_reward": 0.5, "items_reward": -0.25},
    }
    return plain | changes


class FakeSearch:
    """What is shown of a search of `fits` short fits and two lanes."""

    def __init__(self, fits_done: int = 0, fits: int = 8) -> None:
        self.fits_done, self.fits = fits_done, fits
        self.last: list[dict[str, Any]] = []

        class Config:
            episodes, iterations = 6, 10

        self.config = Config()


ROUND = [row(0), row(1, sparsity=0.75, users_size=9.0, quality=0.5, users_reward=1.0)]
TEXT = (
    "episode 4/6 iteration 2/10: mean sizes users 8.5 items 4.0, sparsity 62.5 %, quality 0.3750 (ratio 0.750), reward "
    "users 0.750 items -0.250"
)


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(search_progress, "time", found)
    return found


def run(search: Any, clock: Clock, seconds: float) -> None:
    """Tell all fits that are left, each after so many seconds; every second one completes a round."""
    with SearchProgress(search) as progress:
        while search.fits_done < search.fits:
            clock.now += seconds
            search.fits_done += 1
            completed = search.fits_done % 2 == 0
            # The first round is of equal sizes, which have no rows.
            if completed and search.fits_done > 2:
                search.last = ROUND
            progress.told(completed)


class TestSearch:
    def test_a_round_in_words(self) -> None:
        search: Any = FakeSearch()
        search.last = ROUND
        assert describe_round(search.last, search.config) == TEXT

    def test_a_log_gets_a_line_a_round(self, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        run(FakeSearch(), clock, 60)
        assert stream.getvalue().splitlines() == [
            f"fit 4/8, {TEXT}, 4 min left",
            f"fit 6/8, {TEXT}, 2 min left",
            f"fit 8/8, {TEXT}, 0 s left",
        ]

    def test_the_time_left_is_that_of_fits_made_here(self, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
        """A resumed search knows nothing of how long the earlier ones took."""
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        run(FakeSearch(fits_done=5), clock, 10)
        assert [line.split(", ")[-1] for line in stream.getvalue().splitlines()] == ["20 s left", "0 s left"]

    def test_a_terminal_gets_a_bar(self, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        run(FakeSearch(fits_done=2), clock, 0)
        assert "\r" in stream.getvalue()
        assert "8/8" in stream.getvalue()
        assert stream.getvalue().count("\n") == 1


class TestReference:
    @staticmethod
    def show(stream: Any, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        with TrainingProgress("reference", every=2) as progress:
            for epoch in range(1, 13):
                progress.on_epoch("reference", "", EpochRecord(epoch, 0.5, 0.25 if epoch % 2 == 0 else None))
        return str(stream.getvalue())

    def test_a_log_gets_every_fifth_evaluation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.show(io.StringIO(), monkeypatch) == "reference\n  epoch 10 loss 0.5000 valid 0.2500\n"

    def test_a_terminal_gets_a_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = self.show(Terminal(), monkeypatch)
        last = re.split("\r", shown)[-1]
        assert last.startswith("  training: 12 epochs")
        assert "valid 0.2500" in last


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (45.2, "45 s"),
        (89, "89 s"),
        (89.9, "90 s"),
        (90, "2 min"),
        (720, "12 min"),
        (89 * 60, "89 min"),
        (90 * 60, "1 h 30 min"),
        (3 * 3600 + 300, "3 h 5 min"),
        (7199.9, "2 h 0 min"),
        (30 * 3600, "30 h 0 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
