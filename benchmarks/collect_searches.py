"""Gather what searches at budgets have added as rows of a measurement.

    python benchmarks/collect_searches.py runs/a runs/b --out docs/measurements/searches.csv

A row a search and budget; rows of searches that the file holds already are replaced.
"""

import argparse
import csv
from pathlib import Path
from statistics import mean

from ciess.runs.directory import read_config
from ciess.storage.columns import HISTORY
from ciess.storage.storage import Storage, read_columns

KEY = (
    *("dataset", "backbone", "strategy", "traits", "exploration", "state", "begin", "episodes_from", "held_to_best"),
    *("memory_weight_rate", "halves", "min_size", "split_seed", "seed", "sparsity"),
)
"""What tells rows apart."""

ENDS = 50
"""Fits at either end of a search whose mean quality, on the pairs searched by, stands in a row."""


def rows_of(run: Storage) -> list[dict[str, str]]:
    """A row a budget of a finished search."""
    config, _ = read_config(run)
    data = run.read_json("data.json")
    fits = read_columns(run, "history.parquet", HISTORY).to_pylist()
    qualities: dict[float, list[float]] = {}
    for fit in fits:
        qualities.setdefault(fit["target_sparsity"], []).append(fit["quality"])
    rows = []
    for found in run.read_json("verdict.json"):
        start, searched = found["start"] or {}, qualities[found["sparsity"]]
        rows.append(
            {
                "dataset": data["name"],
                "backbone": config.backbone,
                "strategy": config.strategy,
                "traits": "" if config.strategy == "td3" else str(config.kinds.traits),
                "exploration": config.exploration if config.strategy == "td3" else "",
                "state": config.agent.state if config.strategy == "td3" else "",
                "begin": config.agent.begin if config.strategy == "td3" else "",
                "episodes_from": config.agent.episodes_from if config.strategy == "td3" else "",
                "held_to_best": f"{config.agent.held_to_best:g}" if config.strategy == "td3" else "",
                "memory_weight_rate": f"{config.memory_weight_rate:g}" if config.strategy == "td3" else "",
                "halves": str(config.halves),
                "min_size": str(config.min_size),
                "split_seed": str(data["split_seed"]),
                "seed": str(config.seed),
                "sparsity": str(found["sparsity"]),
                "fits": str(config.fits),
                "won_by": found["origin"],
                "side": str(start.get("side", "")),
                "best_on_searched_by": f"{max(searched):.4f}",
                "mean_of_first": f"{mean(searched[:ENDS]):.4f}",
                "mean_of_last": f"{mean(searched[-ENDS:]):.4f}",
                "choice_quality": f"{found['quality']:.4f}",
                "sized": f"{found['sized']:.4f}",
                "equal": f"{found['equal']:.4f}",
                **{
                    f"{name}{suffix}": f"{found[name][key]:.4f}"
                    for name in ("over_sized", "over_equal")
                    for suffix, key in (("", "mean"), ("_half_interval", "half_interval"))
                },
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Run the script; arguments are those of the process by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args(arguments)
    kept: dict[tuple[str, ...], dict[str, str]] = {}
    if given.out.exists():
        with given.out.open(newline="", encoding="utf-8") as file:
            kept = {tuple(row[name] for name in KEY): row for row in csv.DictReader(file)}
    for run in given.runs:
        kept |= {tuple(row[name] for name in KEY): row for row in rows_of(Storage(run))}
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(next(iter(kept.values()))), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept[key] for key in sorted(kept))


if __name__ == "__main__":
    main()
