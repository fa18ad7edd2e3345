"""What is shown of a full training, and of the stage in which a learned method finds its masks, while they run."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from ciess.config.search import SearchConfig
from ciess.search.search import Search
from ciess.training.history import EpochRecord

LOG_EVALUATIONS, LOG_SECONDS = 5, 20
"""Between two lines of a log: evaluations of a training, seconds of a learned method; a new stage is shown at once."""


class TrainingProgress:
    """Whatever trains, one thing after another: a bar a stage on a terminal, now and then a line in a log.

    Nothing is shown of what has no title.
    """

    def __init__(self, title: str | None = None, every: int = 1) -> None:
        """Begin with a title, or by `announce`; every: epochs between two evaluations."""
        self.title, self.every = title, every
        self.terminal = sys.stderr.isatty()
        self.bar: Any = None
        self.stage: str | None = None
        self.best, self.shown = 0.0, 0.0

    def __enter__(self) -> "TrainingProgress":
        if self.title is not None:
            self.announce(self.title)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def announce(self, title: str) -> None:
        """Begin to show another training."""
        self.__exit__()
        self.title, self.bar, self.stage, self.best, self.shown = title, None, None, 0.0, 0.0
        print(title, file=sys.stderr, flush=True)

    def on_epoch(self, name: str, stage: str, record: EpochRecord) -> None:
        """Show one epoch of a stage such as `choose` or `refit`, or of a training without stages."""
        if self.title is None:
            return
        self.best = max(self.best, record.quality or 0.0)
        loss = "start" if record.loss is None else f"loss {record.loss:.4f}"
        if self.terminal:
            self._step(stage, stage or "training", "epochs", record.epoch - 1)
            self.bar.set_postfix_str(f"{loss} best valid {self.best:.4f}")
            self.bar.update(record.epoch - self.bar.n)
        elif record.epoch % (LOG_EVALUATIONS * self.every) == 0:
            words = [stage, f"epoch {record.epoch}", loss]
            words += [] if record.quality is None else [f"valid {record.quality:.4f}"]
            self._line(" ".join(word for word in words if word))

    def on_row(self, row: Mapping[str, Any]) -> None:
        """Show a row of a learned method's history: `stage`, `step`, and whatever else it has."""
        stage, step = row.get("stage"), row.get("step")
        if self.terminal:
            self._step(stage, stage, "steps")
            self.bar.set_postfix_str(describe_row(row, ("stage", "step")), refresh=False)
            self.bar.update((step or 0) - self.bar.n)
        elif stage != self.stage or time.monotonic() - self.shown > LOG_SECONDS:
            self._line(describe_row(row))
            self.shown = time.monotonic()
        self.stage = stage

    def say(self, line: str) -> None:
        """Show a line of text after all rows."""
        self.__exit__()
        self.bar = None
        self._line(line)

    def _step(self, stage: str | None, title: str | None, unit: str, initial: int = 0) -> None:
        """A bar for this stage."""
        if self.bar is None or stage != self.stage:
            self.__exit__()
            self.stage = stage
            self.bar = tqdm(desc=f"  {title}", unit=f" {unit}", initial=initial)

    def _line(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


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


def describe_row(row: Mapping[str, Any], without: Sequence[str] = ("stage",)) -> str:
    """A line of a method's history: `supernet step 50, loss 0.4123`; without: columns that are not named."""
    found = {name: value for name, value in row.items() if value is not None and name not in without}
    words = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items()]
    return ", ".join(words) if "stage" not in row or "step" in without else f"{row['stage']} {', '.join(words)}"


def describe_round(rows: Sequence[Mapping[str, Any]], config: SearchConfig) -> str:
    """A round in words: means over the lanes.

    Args:
        rows: its rows of history.parquet.
        config: settings of the search.
    """

    def mean(name: str) -> float:
        return float(sum(row[name] for row in rows) / len(rows))

    if config.strategy != "td3":
        generation, target = (rows[0]["episode"] - 1) // config.lanes + 1, rows[0]["target_sparsity"]
        best = max(rows, key=lambda row: row["quality"])
        chosen = "" if best["choice_quality"] is None else f", {best['choice_quality']:.4f} on the other half"
        return (
            f"generation {generation}/{config.episodes // config.lanes} at {100 * target:g} %: mean sizes users "
            f"{mean('users_size'):.1f} items {mean('items_size'):.1f}, quality {mean('quality'):.4f}, best "
            f"{best['quality']:.4f}{chosen}"
        )
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
