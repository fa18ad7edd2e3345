"""What is shown of a search while it runs: a bar on a terminal, a line a round in a log."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from ciess.checkpoint import EpochRecord
from ciess.search import Search
from ciess.search_config import SearchConfig


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
