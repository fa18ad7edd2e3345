"""What is shown of a full training, and of the stage in which a learned method finds its masks, while they run."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from ciess.checkpoint import EpochRecord
from ciess.config import RecommenderConfig


class TrainingProgress:
    """A bar on a terminal, a line an evaluation in a log."""

    def __init__(self, title: str, config: RecommenderConfig) -> None:
        self.title, self.config = title, config
        self.terminal = sys.stderr.isatty()
        self.bar: Any = None
        self.stage = ""
        self.best = 0.0

    def __enter__(self) -> "TrainingProgress":
        print(self.title, file=sys.stderr, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_epoch(self, name: str, stage: str, record: EpochRecord) -> None:
        """Show one epoch of the stage `choose` or `refit`."""
        if record.quality is not None:
            self.best = max(self.best, record.quality)
        quality = f"valid {record.quality:.4f}" if record.quality is not None else ""
        if not self.terminal:
            if record.epoch % (5 * self.config.training.evaluate_every) == 0:
                print(f"  {stage} epoch {record.epoch} loss {record.loss:.4f} {quality}", file=sys.stderr, flush=True)
            return
        if self.bar is None or self.stage != stage:
            if self.bar is not None:
                self.bar.close()
            self.stage = stage
            self.bar = tqdm(desc=f"  {stage}", unit=" epochs", initial=record.epoch - 1)
        self.bar.set_postfix_str(f"loss {record.loss:.4f} best valid {self.best:.4f}")
        self.bar.update()


LOG_SECONDS = 20
"""Between two lines of a learned method in a log; a new stage is shown at once."""


class LearningProgress:
    """A learned method's own numbers: a bar on a terminal, now and then a line in a log."""

    def __init__(self, title: str) -> None:
        self.title, self.terminal = title, sys.stderr.isatty()
        self.bar: Any = None
        self.stage: Any = None
        self.shown = 0.0

    def __enter__(self) -> "LearningProgress":
        print(self.title, file=sys.stderr, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_row(self, row: Mapping[str, Any]) -> None:
        """Show a row of the history: `stage`, `step`, and whatever else it has."""
        stage, step = row.get("stage"), row.get("step")
        if self.terminal:
            if self.bar is None or stage != self.stage:
                self.__exit__()
                self.bar = tqdm(desc=f"  {stage}", unit=" steps")
            self.bar.set_postfix_str(describe_row(row, ("stage", "step")), refresh=False)
            self.bar.update((step or 0) - self.bar.n)
        elif stage != self.stage or time.monotonic() - self.shown > LOG_SECONDS:
            print(f"  {describe_row(row)}", file=sys.stderr, flush=True)
            self.shown = time.monotonic()
        self.stage = stage

    def say(self, line: str) -> None:
        """Show a line of text behind all rows."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        print(f"  {line}", file=sys.stderr, flush=True)


def describe_row(row: Mapping[str, Any], without: Sequence[str] = ("stage",)) -> str:
    """A line of a method's history: `supernet step 50, loss 0.4123`; without: columns that are not named."""
    found = {name: value for name, value in row.items() if value is not None and name not in without}
    words = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items()]
    return ", ".join(words) if "stage" not in row or "step" in without else f"{row['stage']} {', '.join(words)}"


class RetrainingProgress:
    """One training after another, each under its own title."""

    def __init__(self, config: RecommenderConfig) -> None:
        self.config = config
        self.now: TrainingProgress | None = None

    def __enter__(self) -> "RetrainingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.now is not None:
            self.now.__exit__()

    def announce(self, title: str) -> None:
        """Begin to show another training."""
        self.__exit__()
        self.now = TrainingProgress(title, self.config).__enter__()

    def on_epoch(self, name: str, stage: str, record: EpochRecord) -> None:
        """Show an epoch of the training announced last."""
        if self.now is not None:
            self.now.on_epoch(name, stage, record)
