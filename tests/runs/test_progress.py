"""What is shown while one training after another runs. One training alone is tested with `ciess fit`."""

import io
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from ciess.config.recommender import RecommenderConfig
from ciess.runs.progress import TrainingProgress, describe_row
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
