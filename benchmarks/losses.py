"""Which loss, learning rate, batch and penalty go on best from a spectral start: a row a training.

    python benchmarks/losses.py ml-1m/ratings.dat --backbone items --sparsity 0.95 --out docs/measurements/losses.csv

Sizes and start are those that `sized` finds. Rows are added to --out as they come; those that it holds are left out.
"""

import argparse
import csv
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.config.starts import GENTLE
from ciess.data.readers import read
from ciess.devices import cpu_threads
from ciess.storage.storage import Storage
from ciess.tables.protocol import train_and_choose
from ciess.tables.spec import TableSpec
from ciess.training.prepared import prepare
from ciess.training.starts.rule import tuned_rule

COLUMNS = (
    *("dataset", "backbone", "sparsity", "mask", "start", "loss", "learning_rate", "batch_size", "decay"),
    *("leave_one_out", "evaluate_every", "valid_quality_of_start", "best_valid_quality", "epoch"),
)

SETTINGS: tuple[dict[str, Any], ...] = (
    {"loss": "squared"},
    {"loss": "squared", "learning_rate": 0.03},
    {"loss": "squared", "learning_rate": 0.3},
    {"loss": "squared", "decay": 1e-2},
    {"loss": "softmax"},
    {"loss": "softmax", "learning_rate": 0.1},
    {"loss": "softmax", "learning_rate": 0.03},
    {"loss": "softmax", "learning_rate": 0.003},
    {"loss": "softmax", "batch_size": 2048},
    {"loss": "softmax", "decay": 1e-2},
    {"loss": "bpr"},
    {"loss": "bpr", "learning_rate": 0.01},
)
"""What is tried, each in the place of the defaults of its loss."""


def main(arguments: list[str] | None = None) -> None:
    """Train a table by every setting and note what validation says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--pool-splits", action="store_true", help="pool the parts of input that comes split")
    parser.add_argument("--backbone", default="items")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--losses", nargs="+", default=["squared", "softmax", "bpr"])
    parser.add_argument("--max-epochs", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="losses.csv")
    parser.add_argument("--work", default="runs/losses", help="folder of checkpoints, emptied after each training")
    options = parser.parse_args(arguments)
    data, out = read(options.data, pool_splits=options.pool_splits), Path(options.out)
    if not out.exists():
        out.write_text(",".join(COLUMNS) + "\n")
    with out.open() as file:
        known = {tuple(row[name] for name in COLUMNS[:10]) for row in csv.DictReader(file)}
    plain = FitConfig(backbone=options.backbone, threads=options.threads)
    with cpu_threads(options.threads):
        rule = tuned_rule(data, prepare(data, torch.device("cpu")), plain, masks.exact(options.sparsity), 0)
    assert rule.start is not None
    start = " ".join(str(value) for value in rule.start.described().values())
    described = f"{rule.item_share:g} to items degree^{rule.popularity:g}"
    spec = dataclasses.replace(TableSpec("mask", rule.mask(data, plain, options.sparsity), 0), start=rule.start)
    for setting in SETTINGS:
        loss = setting["loss"]
        if loss not in options.losses:
            continue
        gentle = GENTLE[loss] | {name: value for name, value in setting.items() if name != "loss"}
        if options.max_epochs is not None:
            gentle["max_epochs"] = min(options.max_epochs, gentle["max_epochs"])
            gentle["evaluate_every"] = min(gentle["evaluate_every"], gentle["max_epochs"])
        batch = "all" if gentle["batch_size"] >= len(data.train) else str(gentle["batch_size"])
        rates = (f"{gentle['learning_rate']:g}", batch, f"{gentle['decay']:g}", "best")
        key = (data.name, options.backbone, f"{options.sparsity:g}", described, start, loss, *rates)
        if key in known:
            continue
        began, progress = time.perf_counter(), Storage(options.work)
        config = FitConfig(backbone=options.backbone, threads=options.threads, loss=loss, gentle=gentle)
        chosen = train_and_choose(data, spec, config, progress)
        progress.delete()
        of_start = next(record.quality for record in chosen.history if record.epoch == 0)
        found = (gentle["evaluate_every"], f"{of_start:.4f}", f"{chosen.means['quality']:.4f}", chosen.epoch)
        with out.open("a", newline="") as file:
            csv.writer(file).writerow((*key, *found))
        print(*key, *found, f"{time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
