"""Gather the tables of run directories as rows of a measurement.

    python benchmarks/collect.py runs/a runs/b --out docs/measurements/starts.csv

A row a table; rows of tables that the file holds already are replaced.
"""

import argparse
import csv
from pathlib import Path

from ciess.reporting.summaries import read_results
from ciess.storage.storage import Storage

TESTED = (
    ("Recall", 5),
    ("Recall", 20),
    ("NDCG", 5),
    ("NDCG", 20),
    ("quality", None),
    ("ItemRows", None),
    ("Coverage", 20),
)
"""What stands of the test."""

KEY = ("dataset", "backbone", "method", "candidate", "split_seed", "start", "loss")
"""What tells tables apart."""


def rows_of(run: Storage) -> list[dict[str, str]]:
    """A row a table of a run, its dataset named by the stem of its file where it is none of the known ones."""
    tables: dict[str, dict[str, str]] = {}
    for row in read_results(run).to_pylist():
        found = tables.setdefault(
            row["candidate"],
            {
                "dataset": row["dataset"],
                "backbone": row["backbone"],
                "method": row["method"],
                "candidate": row["candidate"],
                "split_seed": str(row["split_seed"]),
                "sparsity": f"{row['sparsity']:.6f}",
                "kept": str(row["kept_parameters"]),
                "start": row["start"] or "",
                "loss": row["loss"] or "",
                "epochs": str(row["epochs"]),
                "seconds": f"{row['seconds']:.1f}",
            },
        )
        if (row["split"], row["metric"]) == ("valid", "quality"):
            found["valid_quality"] = f"{row['value']:.4f}"
        if row["split"] == "test" and (row["metric"], row["k"]) in TESTED:
            name = row["metric"] if row["k"] is None else f"{row['metric']}@{row['k']}"
            found[f"test_{name}"] = f"{row['value']:.4f}"
    return list(tables.values())


def main(arguments: list[str] | None = None) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--out", required=True)
    options = parser.parse_args(arguments)
    out, rows = Path(options.out), {}
    if out.exists():
        with out.open() as file:
            rows = {tuple(row[name] for name in KEY): row for row in csv.DictReader(file)}
    for run in options.runs:
        rows |= {tuple(row[name] for name in KEY): row for row in rows_of(Storage(run))}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))
    print(f"{out}: {len(rows)} tables")


if __name__ == "__main__":
    main()
