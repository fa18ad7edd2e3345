"""What is shown of trainings and searches while they run."""

import io
import re
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from ciess.config.recommender import RecommenderConfig
from ciess.config.search import SearchConfig
from ciess.runs import progress as search_progress
from ciess.runs.progress import SearchProgress, TrainingProgress, describe_round, describe_row, duration
from ciess.training.history import EpochRecord


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def config() -> RecommenderConfig:
    return RecommenderConfig.model_validate({"training": {"evaluate_every": 2, "max_epochs": 12}})


def train(progress: TrainingProgress, name: str, stage: str, last: int, quality: float | None) -> None:
    for epoch in range(1, last + 1):
        progress.on_epoch(name, stage, EpochRecord(epoch, 0.5, quality if epoch % 2 == 0 else None))


def test_a_log_gets_a_title_for_each_training(monkeypatch: pytest.MonkeyPatch, config: RecommenderConfig) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with TrainingProgress(every=config.training.evaluate_every) as progress:
        train(progress, "early", "choose", 10, 0.125)
        assert stream.getvalue() == ""  # nothing was announced yet
        progress.announce("[90 %, 1/2] equal sizes of 12")
        train(progress, "ciess-c90-s0", "choose", 10, 0.25)
        progress.announce("[90 %, 2/2] one that is done already")
        progress.announce("table ciess-c90-s0")
        train(progress, "ciess-c90-s0", "refit", 11, None)
    assert stream.getvalue().splitlines() == [
        "[90 %, 1/2] equal sizes of 12",
        "  choose epoch 10 loss 0.5000 valid 0.2500",
        "[90 %, 2/2] one that is done already",
        "table ciess-c90-s0",
        "  refit epoch 10 loss 0.5000",
    ]


def test_a_terminal_gets_bars_of_their_own(monkeypatch: pytest.MonkeyPatch, config: RecommenderConfig) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with TrainingProgress(every=config.training.evaluate_every) as progress:
        progress.announce("first")
        train(progress, "a", "choose", 4, 0.75)
        progress.announce("second")
        train(progress, "b", "choose", 2, 0.25)
    # A bar redraws its line; what is left of the line when the next begins is what stays.
    first, one, second, two = [line.split("\r")[-1] for line in stream.getvalue().split("\n") if line.strip()]
    assert (first, second) == ("first", "second")
    assert "choose: 4 epochs" in one
    assert "choose: 2 epochs" in two
    # The best of an earlier training is not that of a later one.
    assert "best valid 0.7500" in one
    assert "best valid 0.2500" in two
    assert progress.bar.disable


def test_bars_are_closed_when_a_training_breaks_down(
    monkeypatch: pytest.MonkeyPatch, config: RecommenderConfig
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = TrainingProgress(every=config.training.evaluate_every)
    with pytest.raises(KeyboardInterrupt), progress:
        progress.announce("first")
        train(progress, "a", "choose", 1, None)
        raise KeyboardInterrupt
    assert progress.bar.disable


def learn(progress: TrainingProgress) -> None:
    for step in range(1, 41):
        progress.on_row({"stage": "supernet", "step": step, "loss": 1 / 3, "sparsity": 0.25})
    progress.on_row({"stage": "evolution", "step": 1, "best": 0.125, "sizes": "3 4"})


def test_a_line_of_a_history() -> None:
    row = {"stage": "supernet", "step": 40, "loss": 1 / 3, "kept": 123456, "best": None}
    assert describe_row(row) == "supernet step 40, loss 0.3333, kept 123456"
    assert describe_row(row, ("stage", "step", "best")) == "loss 0.3333, kept 123456"


def test_a_log_gets_a_line_of_a_learned_method_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come every second here, lines every 20; a new stage is shown at once."""
    stream, clock = io.StringIO(), iter(range(100, 1000))
    monkeypatch.setattr(sys, "stderr", stream)
    now = [0]

    def tick() -> int:
        return now[0]

    monkeypatch.setattr("time.monotonic", tick)
    with TrainingProgress("lightgcn optembed-s0: finding masks") as progress:
        shown = progress.on_row

        def on_row(row: Mapping[str, Any]) -> None:
            now[0] = next(clock)
            shown(row)

        monkeypatch.setattr(progress, "on_row", on_row)
        learn(progress)
    assert stream.getvalue().splitlines() == [
        "lightgcn optembed-s0: finding masks",
        "  supernet step 1, loss 0.3333, sparsity 0.25",
        "  supernet step 22, loss 0.3333, sparsity 0.25",
        "  evolution step 1, best 0.125, sizes 3 4",
    ]


def test_a_terminal_gets_a_bar_a_stage_of_a_learned_method(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with TrainingProgress("title") as progress:
        learn(progress)
    title, one, two = [line.split("\r")[-1] for line in stream.getvalue().split("\n") if line.strip()]
    assert title == "title"
    assert "supernet: 40 steps" in one
    assert "loss 0.3333, sparsity 0.25" in one
    assert "evolution: 1 steps" in two


class TestProgress:
    @staticmethod
    def show(stream: Any, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        with TrainingProgress("[1/1] lightgcn equal-c80-s0", every=2) as progress:
            for epoch in range(1, 13):
                quality = 0.25 if epoch == 2 else 0.125 if epoch % 2 == 0 else None
                progress.on_epoch("equal-c80-s0", "choose", EpochRecord(epoch, 0.5, quality))
            for epoch in range(1, 3):
                progress.on_epoch("equal-c80-s0", "refit", EpochRecord(epoch, 0.375, None))
        return str(stream.getvalue())

    def test_a_log_gets_plain_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.show(io.StringIO(), monkeypatch) == (
            "[1/1] lightgcn equal-c80-s0\n  choose epoch 10 loss 0.5000 valid 0.1250\n"
        )

    def test_a_terminal_gets_one_bar_a_stage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = self.show(Terminal(), monkeypatch)
        assert "\r" in shown
        last = [re.split(r"\r", line)[-1] for line in shown.splitlines() if line.strip()]
        assert last[0] == "[1/1] lightgcn equal-c80-s0"
        assert "  choose: 12 epochs" in shown
        assert "loss 0.5000 best valid 0.2500" in shown
        assert "  refit: 2 epochs" in shown
        # A bar that is done stays on a line of its own.
        assert shown.count("\n") == 3


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
            strategy, episodes, iterations = "td3", 6, 10

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

    def test_a_generation_in_words(self) -> None:
        config = SearchConfig(sparsity=(0.75,), fits=24)
        rows = [row(0) | {"episode": 13, "target_sparsity": 0.75, "choice_quality": None}]
        rows.append(row(1, quality=0.5) | {"episode": 14, "target_sparsity": 0.75, "choice_quality": 0.4})
        assert describe_round(rows, config) == (
            "generation 2/2 at 75 %: mean sizes users 8.0 items 4.0, quality 0.3750, best 0.5000, 0.4000 on the other "
            "half"
        )

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
