"""What a sweep has found: results.parquet and per_user.parquet of all tables, one printed table, and pictures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from ciess.cluster.sweep.config import SweepConfig, variant_of_search
from ciess.cluster.sweep.plan import FAILED, Absence
from ciess.methods import METHODS
from ciess.reporting.figures.results import frontier
from ciess.reporting.figures.style import png, save_figures
from ciess.reporting.figures.sweep import draw_sweep
from ciess.reporting.report import aligned, describe_tests
from ciess.reporting.statistics import paired_tests
from ciess.reporting.summaries import Summary, method_rank, summarise
from ciess.runs.figures import write_search_figures
from ciess.storage.columns import EQUAL_WON, FORCED, PER_USER, RESULTS, SEARCHED, SIZED_WON
from ciess.storage.storage import Storage, read_columns

SCHEMAS = {"results.parquet": RESULTS, "per_user.parquet": PER_USER}
"""Files that every table of a sweep has, and that the sweep has of all of them."""

METRICS = (("Recall", 20), ("NDCG", 20))
"""Shown of each table, on test."""

SHARES = (("ItemRows", None), ("Coverage", 20))
"""Shown beside them, in percent."""

INTERVAL = "Interval"
"""Half the 95 % interval of test quality, where a sample of users was ranked."""

WORTH_SAYING = 0.05
"""Percentage points between the sparsity asked for and the one reached."""

LEGEND = (
    "Cells: Recall@20 and NDCG@20 on test, means over seeds; share of items with a row / in anyone's top 20 in\n"
    "percent; '@': the sparsity reached in percent, where it is not the column's. '=': validation chose equal sizes\n"
    "of that budget, 's': sizes by popularity, and the line 'searched' has the best searched mask; '-': no mask of\n"
    "the search keeps the budget; '~': a budget that was not reached by training and is kept by force; '!': it failed."
)


def collect(sweep: Storage, tables: Sequence[str]) -> pa.Table:
    """Write results.parquet and per_user.parquet of the finished tables of these names; returns the former."""
    found: dict[str, list[pa.Table]] = {file: [] for file in SCHEMAS}
    for name in tables:
        place = sweep.child("tables", name)
        if place.exists("card.json"):
            for file, parts in found.items():
                parts.append(read_columns(place, file, SCHEMAS[file]))
    for file, schema in SCHEMAS.items():
        sweep.write_table(file, pa.concat_tables([schema.empty_table(), *found[file]]).cast(schema))
    return read_columns(sweep, "results.parquet", RESULTS)


def sweep_table(results: pa.Table, config: SweepConfig, absences: Sequence[Absence]) -> str:
    """Rows: methods and searches, for each backbone; columns: budgets.

    Args:
        results: rows of RESULTS.
        config: of the sweep.
        absences: searches without a table at one.
    """
    budgets = [None, *sorted(set(config.sparsities))]
    cells: dict[tuple[str, str], dict[float | None, list[dict[str, Any]]]] = {}
    for row in results.to_pylist():
        if row["split"] == "test" and (row["metric"], row["k"]) in (*METRICS, *SHARES):
            place = cells.setdefault((row["backbone"], _label(row)), {})
            place.setdefault(row["target_sparsity"], []).append(row)
    marks: dict[tuple[str, str, float | None], str] = {}
    for absence in absences:
        backbone, _, rest = variant_of_search(absence.search).partition("-")
        label = rest if rest in METHODS else f"ciess {rest}"
        place_of_mark = (backbone, label, absence.sparsity)
        # Of two seeds the one that failed is what the reader must know.
        if absence.reason == FAILED or place_of_mark not in marks:
            marks[place_of_mark] = "!" if absence.reason == FAILED else "-"
        cells.setdefault((backbone, label), {})
    lines = []
    for backbone in dict.fromkeys(config.backbones):
        header = ["method", *("no budget" if c is None else f"{100 * c:g} %" for c in budgets)]
        rows = [header]
        for own, label in sorted(cells, key=lambda key: _rank(key[1])):
            if own == backbone:
                found = cells[own, label]
                rows.append([label, *(_cell(found.get(c, []), marks.get((own, label, c), "")) for c in budgets)])
        lines += [*aligned(rows, left=header), ""]
    sampled = [row["value"] for row in results.to_pylist() if (row["split"], row["metric"]) == ("test", INTERVAL)]
    note = [f"A sample of the users was ranked: test quality within ±{_share(max(sampled))} (95 %)."] if sampled else []
    return "\n".join([*lines, LEGEND, *note])


def describe_sweep_tests(sweep: Storage, results: pa.Table) -> list[str]:
    """Paired tests against equal sizes, a backbone at a time."""
    per_user, lines = read_columns(sweep, "per_user.parquet", PER_USER), []
    for backbone in dict.fromkeys(results["backbone"].to_pylist()):
        rows = [row for row in results.to_pylist() if row["backbone"] == backbone]
        names = {row["candidate"] for row in rows}
        own = per_user.filter(pa.array(np.isin(per_user["candidate"].to_numpy(), list(names))))
        if {"equal", "ciess"} <= {row["method"] for row in rows}:
            lines += [f"{backbone}:", *describe_tests(paired_tests(own, reference="equal"), "Against equal sizes. ")]
    return lines


def write_pictures(
    sweep: Storage,
    results: pa.Table,
    config: SweepConfig,
    finished: Mapping[str, bool],
    further: Mapping[str, Figure] | None = None,
) -> list[str]:
    """Draw Figure 4 and a frontier for each backbone below figures/, and Figure 3 of each search beside it.

    Args:
        sweep: folder of the sweep.
        results: rows of RESULTS.
        config: of the sweep.
        finished: searches by name, and whether they walked.
        further: other figures by name.

    Returns:
        the paths.
    """
    drawn = {**draw_sweep(results, config.sparsities), **(further or {})}
    for backbone in dict.fromkeys(results["backbone"].to_pylist()):
        name = "frontier" if len(config.backbones) == 1 else f"frontier-{backbone}"
        drawn[name] = frontier(_summaries([row for row in results.to_pylist() if row["backbone"] == backbone]))
    written = save_figures(sweep, {name: png(figure) for name, figure in drawn.items()})
    for name, walked in finished.items():
        other = name.replace("-walk-", "-nowalk-")
        beside = f"{sweep.location}/searches/{other}" if walked and finished.get(other) is False else None
        written += write_search_figures(f"{sweep.location}/searches/{name}", beside)
    return written


def _summaries(rows: Sequence[Mapping[str, Any]]) -> list[Summary]:
    """Of one backbone, for a frontier: the best searched mask of each search, by the settings in which they differ."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    beaten = {_search_and_budget(row) for row in rows if row["role"] == SEARCHED}
    for row in rows:
        if row["role"] is None:
            groups.setdefault(row["method"], []).append(row)
        elif row["role"] == SEARCHED or _search_and_budget(row) not in beaten:
            key = variant_of_search(row["search_id"])
            # One name for both roles, so that seeds of a budget stay together.
            groups.setdefault(key, []).append({**row, "candidate": f"{key}-s{row['seed']}"})
    parts = [key.split("-")[1:] for key in groups if "-" in key]
    differing = [position for position, values in enumerate(zip(*parts, strict=True)) if len(set(values)) > 1]
    found = []
    for key, own in groups.items():
        _, *words = key.split("-")
        label = " ".join([own[0]["method"], *(words[position] for position in differing if words)])
        table = pa.Table.from_pylist(own, schema=RESULTS)
        found += [dataclasses.replace(summary, label=label) for summary in summarise(table)]
    return found


def _search_and_budget(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["search_id"], row["target_sparsity"], row["seed"]


def _label(row: Mapping[str, Any]) -> str:
    if row["search_id"] is None:
        return str(row["method"])
    _, _, label = variant_of_search(row["search_id"]).partition("-")
    return f"ciess {label}" + (f" {SEARCHED}" if row["role"] == SEARCHED else "")


def _rank(label: str) -> tuple[tuple[int, str], str]:
    return method_rank(label.partition(" ")[0]), label


def _cell(rows: Sequence[Mapping[str, Any]], mark: str) -> str:
    if not rows:
        return mark
    parts = []
    for metric, k in METRICS:
        values = [row["value"] for row in rows if (row["metric"], row["k"]) == (metric, k)]
        spread = f"±{_share(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
        parts.append(_share(float(np.mean(values))) + spread)
    shares = [[row["value"] for row in rows if (row["metric"], row["k"]) == share] for share in SHARES]
    if all(shares):
        parts.append("/".join(f"{100 * float(np.mean(values)):.0f}" for values in shares))
    reached = {row["candidate"]: 100 * row["sparsity"] for row in rows}
    mean, target = float(np.mean(list(reached.values()))), 100 * (rows[0]["target_sparsity"] or 0.0)
    flags = {flag for row in rows for flag in (row["flag"] or "").split(", ")}
    signs = [
        f"@{mean:.1f}" if abs(mean - target) >= WORTH_SAYING else "",
        "=" if EQUAL_WON in flags else "s" if SIZED_WON in flags else "",
        "~" if FORCED in flags else "",
        mark,
    ]
    return " ".join([*parts, *filter(None, signs)])


def _share(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")
