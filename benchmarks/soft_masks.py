"""Sizes of single rows by the gradient of a soft mask, from those of `sized` or of a search: a row every few steps.

    python benchmarks/soft_masks.py ml-1m/ratings.dat --sparsity 0.99 --out docs/measurements/soft_masks.csv
    python benchmarks/soft_masks.py ml-1m/ratings.dat --sparsity 0.99 --run runs/s99     from the best of a search

Backbone `items`, untrained. Column k of item i counts by sigmoid((size - k - 1/2) / temperature); log-sizes go down the
gradient of softmax over items nobody has seen, as sum(sizes) stays the budget. `training`: on the training pairs, each
taken out of its user's own history; `searched`: on the half of validation that a search sees.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ciess import masks
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.halving import halves
from ciess.data.readers import read
from ciess.devices import cpu_threads
from ciess.search.proposals import Proposal
from ciess.search.short_fit import short_fit
from ciess.storage.columns import CANDIDATES
from ciess.storage.storage import Storage, read_columns
from ciess.training.loop import build
from ciess.training.prepared import prepare
from ciess.training.starts.rule import tuned_rule
from ciess.training.starts.start import Start
from ciess.training.starts.weights import spectral_items

COLUMNS = (
    *("dataset", "split_seed", "sparsity", "begin", "loss_on", "temperature", "learning_rate", "step"),
    *("searched_quality", "choice_quality", "seconds"),
)

SHARPNESS = 0.7
"""Scores are multiplied by this share of the factor at which the loss of the first sizes is lowest."""


def soft_sizes(logs: Tensor, total: float, max_size: int) -> Tensor:
    """exp(logs + c) within 1..max_size that sum to a total: float32[m], differentiable with that sum held."""
    low, high = logs.new_tensor(-20.0), logs.new_tensor(20.0)
    with torch.no_grad():
        for _ in range(50):
            middle = (low + high) / 2
            above = (logs + middle).exp().clamp(1, max_size).sum() > total
            low, high = (low, middle) if above else (middle, high)
    sizes = (logs + low).exp()
    free = sizes * ((sizes > 1) & (sizes < max_size))
    # What one row gains all free ones give back, by their sizes.
    spent = free.sum()
    return (sizes * (1 - (spent - spent.detach()) / spent.detach().clamp(min=1))).clamp(1, max_size)


def soft_loss(
    data: Interactions, config: SearchConfig, start: Start, loss_on: str, temperature: float
) -> Callable[[Tensor], Tensor]:
    """From sizes float32[n_items] to the loss, a scalar."""
    prepared = prepare(data, torch.device("cpu"))
    backbone, table = build(data, config.recommender(), 0, spectral_items(prepared, start, config.max_size))
    rows = table[:, 0]
    seen = tuple(torch.from_numpy(part.astype(np.int64)) for part in (data.train.users, data.train.items))
    part = halves(data.valid, data.n_users, data.split_seed)[0] if loss_on == "searched" else data.train
    users, items = (torch.from_numpy(codes.astype(np.int64)) for codes in (part.users, part.items))
    counts = torch.bincount(users, minlength=data.n_users).clamp(min=1).float()
    columns, factor = torch.arange(config.max_size), None

    def mean_loss(hidden: Tensor, scores: Tensor, factor: float) -> Tensor:
        others = torch.logsumexp(hidden * factor, 1)[users]
        scores = scores * factor
        if loss_on == "training":
            others = torch.logaddexp(others, scores)
        return ((others - scores) / counts[users]).sum() / data.n_users

    def loss(sizes: Tensor) -> Tensor:
        nonlocal factor
        masked = rows * torch.sigmoid((sizes[:, None] - columns - 0.5) / temperature)
        of_users, of_items = backbone.encode(masked, prepared.history).split([data.n_users, data.n_items])
        all_scores = of_users @ of_items.T
        scores = all_scores[users, items]
        if loss_on == "training":
            scores = scores - backbone.own_share(of_items, users, items)
        hidden = all_scores.index_put(seen, all_scores.new_tensor(-torch.inf))
        if factor is None:
            with torch.no_grad():
                deviation = float(all_scores.std())
                factors = [share / deviation for share in np.geomspace(0.3, 6, 14)]
                factor = SHARPNESS * min(factors, key=lambda value: float(mean_loss(hidden, scores, value)))
        return mean_loss(hidden, scores, factor)

    return loss


def begin_of(data: Interactions, config: SearchConfig, run: str | None) -> tuple[npt.NDArray[np.int64], Start]:
    """Sizes int64[n] and start to go on from: those of `sized`, or the best of a search on the half that it saw."""
    (sparsity,) = config.sparsity
    if run is None:
        rule = tuned_rule(data, prepare(data, torch.device("cpu")), config, masks.exact(sparsity), 0, by_half=True)
        assert rule.start is not None
        return rule.mask(data, config, masks.exact(sparsity)).sizes.astype(np.int64), rule.start
    rows = read_columns(Storage(run), "candidates.parquet", CANDIDATES).to_pylist()
    rows = [row for row in rows if row["sparsity"] >= sparsity and row["start"] is not None]
    best = max(rows, key=lambda row: row["quality"])
    return np.array(best["sizes"], np.int64), Start(**json.loads(best["start"]))


def main(arguments: list[str] | None = None) -> None:
    """Go down the gradient and judge the sizes on the way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--pool-splits", action="store_true", help="pool the parts of input that comes split")
    parser.add_argument("--sparsity", type=float, default=0.99)
    parser.add_argument("--split-seed", type=int, default=0)
    parser.add_argument("--run", help="a search whose best mask is gone on from")
    parser.add_argument("--loss-on", choices=("training", "searched"), default="training")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--learning-rate", type=float, default=0.06)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="soft_masks.csv")
    options = parser.parse_args(arguments)
    data, out = read(options.data, split_seed=options.split_seed, pool_splits=options.pool_splits), Path(options.out)
    config = SearchConfig(backbone="items", sparsity=(options.sparsity,), threads=options.threads)
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    with cpu_threads(options.threads):
        sizes, start = begin_of(data, config, options.run)
        own = torch.from_numpy(sizes[data.n_users :].astype(np.float32))
        begin = own.clamp(min=1).log()
        change = torch.zeros_like(begin, requires_grad=True)
        optimizer = torch.optim.Adam([change], lr=options.learning_rate)
        loss = soft_loss(data, config, start, options.loss_on, options.temperature)
        began = time.perf_counter()
        for step in range(options.steps + 1):
            soft = soft_sizes(begin + change, float(own.sum()), config.max_size)
            if step % 5 == 0:
                wanted = np.concatenate([np.zeros(data.n_users), soft.detach().double().numpy()])
                mask = masks.project(wanted, config.max_size, options.sparsity, data.degrees(), bounds)
                proposal = Proposal(0, 0, step, mask.sizes if step else sizes.astype(np.int16), start)
                judged = short_fit(data, config, proposal)
                searched = float(np.nanmean(judged.quality))
                begin_name = "sized" if options.run is None else "search"
                given = (data.name, data.split_seed, options.sparsity, begin_name, options.loss_on)
                settings = (options.temperature, options.learning_rate, step)
                found = (f"{searched:.4f}", f"{judged.choice_quality:.4f}", f"{time.perf_counter() - began:.0f}")
                if not out.exists():
                    out.write_text(",".join(COLUMNS) + "\n")
                with out.open("a", newline="") as file:
                    csv.writer(file).writerow((*given, *settings, *found))
                print(*given, *settings, *found, flush=True)
            optimizer.zero_grad()
            loss(soft).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
