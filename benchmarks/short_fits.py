"""How well cheap judgements of masks rank them: against training from the same kind of start to its end.

    python benchmarks/short_fits.py ml-1m/ratings.dat --sparsity 0.9 --out short_fits.csv

Rows are added to --out as they come; masks and settings that it holds already are left out, so an interrupted run goes
on.
"""

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.config.models import WITHOUT_USERS
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.readers import read
from ciess.masks.mask import PrefixMask
from ciess.masks.popularity import sized_mask
from ciess.retraining.choice import mean_ratio
from ciess.search.proposals import Proposal
from ciess.search.reference import environment_of, train_reference
from ciess.search.short_fit import short_fit
from ciess.storage.storage import Storage
from ciess.tables.protocol import train_and_choose
from ciess.tables.spec import TableSpec

SETTINGS: dict[str, dict[str, Any]] = {
    f"spectral {side} {epochs}": {"start": "spectral", "side": side, "epochs": epochs}
    for side in ("both", "items")
    for epochs in (0, 5, 10)
} | {"projected 0": {"start": "projected", "epochs": 0}}
"""Short fits that are judged."""

BOTH_SIDES = ((1.0, 0.0), (1.0, 0.5), (1.0, 0.75), (0.9, 0.5), (0.75, 0.5), (0.5, 0.25), (0.25, 0.5))
ITEMS_ALONE = tuple((1.0, popularity) for popularity in (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0))
"""Items' share and exponent of popularity of masks, and where users have no rows."""

TRUTH = "gentle training"
"""What they are held against: the starts and losses of the default, trained until validation stops to improve."""


def candidates(data: Interactions, config: SearchConfig, sparsity: float) -> Iterator[tuple[str, PrefixMask]]:
    """Masks of a budget that a search may meet: equal, random, by popularity, and noisy ones."""
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    degrees = data.degrees()
    yield "equal", masks.equal(data.n, config.max_size, sparsity, bounds=bounds)
    yield "mixed", masks.mixed(data.n, config.max_size, sparsity, 0, bounds=bounds)
    alone = config.backbone in WITHOUT_USERS
    for share, popularity in ITEMS_ALONE if alone else BOTH_SIDES:
        yield (
            f"sized {share:g} {popularity:g}",
            sized_mask(degrees, data.n_users, config.max_size, sparsity, bounds, share, popularity),
        )
    generator = np.random.Generator(np.random.PCG64(0))
    for share in (1.0,) if alone else (0.9, 0.5):
        base = sized_mask(degrees, data.n_users, config.max_size, sparsity, bounds, share, 0.5).sizes
        noisy = np.maximum(base + generator.normal(0, 6, data.n), 0.5)
        yield f"noisy {share:g}", masks.project(noisy, config.max_size, sparsity, degrees, bounds)


def main(arguments: list[str] | None = None) -> None:
    """Judge every mask by every setting, and train it to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--pool-splits", action="store_true", help="pool the parts of input that comes split")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--backbone", default="lightgcn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="short_fits.csv")
    parser.add_argument("--reference", default="runs/short-fits-reference")
    options = parser.parse_args(arguments)
    data, out = read(options.data, pool_splits=options.pool_splits), Path(options.out)
    shared = {"threads": options.threads, "backbone": options.backbone}
    without_users = options.backbone in WITHOUT_USERS
    settings = {name: short for name, short in SETTINGS.items() if not (without_users and "both" in name)}
    base = SearchConfig(**shared)
    name = f"{options.reference}-{data.name}-{options.backbone}"
    reference = train_reference(data, base.started(), 0, Storage(name))
    environment = environment_of(data, base, reference)
    names = ("dataset", "backbone", "sparsity", "mask", "setting", "quality", "quality_ratio", "seconds")
    known = set()
    if out.exists():
        with out.open() as file:
            known = {tuple(row[column] for column in names[:5]) for row in csv.DictReader(file)}
    else:
        out.write_text(",".join(names) + "\n")
    for mask_name, mask in candidates(data, base, options.sparsity):
        for setting, short in (settings | {TRUTH: {}}).items():
            if (data.name, options.backbone, str(options.sparsity), mask_name, setting) in known:
                continue
            began = time.perf_counter()
            if setting == TRUTH:
                spec = TableSpec("mask", mask, 0)
                progress = Storage(f"{name}-progress-{options.sparsity}")
                quality = train_and_choose(data, spec, FitConfig(**shared), progress).user_quality
                progress.delete()
            else:
                config = SearchConfig(**shared, short_fit=short)
                quality = short_fit(data, config, Proposal(0, 1, 1, mask.sizes), reference.weights).quality
            seconds = time.perf_counter() - began
            mean = float(quality[environment.counted].mean(dtype=np.float64))
            ratio = mean_ratio(environment, quality)
            found = (f"{mean:.5f}", f"{ratio:.5f}", f"{seconds:.2f}")
            row = (data.name, options.backbone, options.sparsity, mask_name, setting, *found)
            with out.open("a", newline="") as file:
                csv.writer(file).writerow(row)
            print(*row, flush=True)


if __name__ == "__main__":
    main()
