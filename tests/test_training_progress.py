"""What is shown while one training after another runs. One training alone is tested with `ciess fit`."""

import io
import sys

import pytest

from ciess.checkpoint import EpochRecord
from ciess.config import RecommenderConfig
from ciess.training_progress import RetrainingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def config() -> RecommenderConfig:
    return RecommenderConfig.model_validate({"training": {"evaluate_every": 2, "max_epochs": 12}})


def train(progress: RetrainingProgress, name: str, stage: str, last: int, quality: float | None) -> None:
    for epoch in range(1, last + 1):
        progress.on_epoch(name, stage, EpochRecord(epoch, 0.5, quality if epoch % 2 == 0 else None))


def test_a_log_gets_a_title_for_each_training(monkeypatch: pytest.MonkeyPatch, config: RecommenderConfig) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with RetrainingProgress(config) as progress:
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
        "  refit epoch 10 loss 0.5000 ",
    ]


def test_a_terminal_gets_bars_of_their_own(monkeypatch: pytest.MonkeyPatch, config: RecommenderConfig) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with RetrainingProgress(config) as progress:
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
    assert progress.now is not None
    assert progress.now.bar.disable


def test_bars_are_closed_when_a_training_breaks_down(
    monkeypatch: pytest.MonkeyPatch, config: RecommenderConfig
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = RetrainingProgress(config)
    with pytest.raises(KeyboardInterrupt), progress:
        progress.announce("first")
        train(progress, "a", "choose", 1, None)
        raise KeyboardInterrupt
    assert progress.now is not None
    assert progress.now.bar.disable
