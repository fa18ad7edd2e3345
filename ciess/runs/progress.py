"""What is shown of a full training, and of the stage in which a learned method finds its masks, while they run."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from ciess.config.recommender import RecommenderConfig
from ciess.config.search import SearchConfig
from ciess.search.search import Search
from ciess.training.history import EpochRecord


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
        """Show a line of text after all rows."""
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


class SearchProgress:
    """Iteration, mean sizes, quality, reward and time left."""

    def __init__(self, search: Search) -> None:
        self.search, self.start, self.first = search, time.monotonic(), search.fits_done
        self.bar: Any = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=search.fits, initial=search.fits_done, unit="fit", dynamic_ncols=True)

    def __enter__(self) -> "SearchProgress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def told(self, completed: bool) -> None:
        """Show that an outcome was told, and the round where it `completed` one."""
        if self.bar is not None:
            self.bar.update()
            if completed and self.search.last:
                self.bar.set_postfix_str(describe_round(self.search.last, self.search.config))
        elif completed and self.search.last:
            done = self.search.fits_done
            each = (time.monotonic() - self.start) / max(1, done - self.first)
            left = (self.search.fits - done) * each
            what = describe_round(self.search.last, self.search.config)
            print(f"fit {done}/{self.search.fits}, {what}, {duration(left)} left", file=sys.stderr, flush=True)


class ReferenceProgress:
    """Epochs of the reference model."""

    def __init__(self, title: str, every: int) -> None:
        self.title, self.every = title, every
        self.bar: Any = None

    def __enter__(self) -> "ReferenceProgress":
        if sys.stderr.isatty():
            self.bar = tqdm(desc=self.title, unit=" epochs")
        else:
            print(self.title, file=sys.stderr, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_epoch(self, record: EpochRecord) -> None:
        """Show an epoch."""
        quality = "" if record.quality is None else f" valid {record.quality:.4f}"
        if self.bar is not None:
            self.bar.update(record.epoch - self.bar.n)
            if quality:
                self.bar.set_postfix_str(quality)
        elif record.epoch % (5 * self.every) == 0:
            print(f"  epoch {record.epoch} loss {record.loss:.4f}{quality}", file=sys.stderr, flush=True)


def describe_round(rows: Sequence[Mapping[str, Any]], config: SearchConfig) -> str:
    """A round in words: means over the lanes. rows: its rows of history.parquet."""

    def mean(name: str) -> float:
        return float(sum(row[name] for row in rows) / len(rows))

    episode = max(row["episode"] for row in rows)
    return (
        f"episode {episode}/{config.episodes} iteration {rows[-1]['iteration']}/{config.iterations}: "
        f"mean sizes users {mean('users_size'):.1f} items {mean('items_size'):.1f}, "
        f"sparsity {100 * mean('sparsity'):.1f} %, quality {mean('quality'):.4f} (ratio {mean('quality_ratio'):.3f}), "
        f"reward users {mean('users_reward'):.3f} items {mean('items_reward'):.3f}"
    )


def duration(seconds: float) -> str:
    """Seconds as people say them: `45 s`, `12 min`, `3 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
