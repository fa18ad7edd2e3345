"""Figures of a run directory. Every function returns a matplotlib Figure and touches no global state."""

import re
from collections import Counter

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ciess.paper import Cell, cells
from ciess.reporting.figures.style import FILLS, LINES, finish, plain, style_of
from ciess.reporting.summaries import Estimate, Summary, method_rank, read_results, summarise
from ciess.storage.columns import EPOCHS
from ciess.storage.storage import Storage, read_columns

FRONTIER_METRICS = (("Recall", 20), ("NDCG", 20))

CURVE = pa.schema([EPOCHS.field(name) for name in ("epoch", "quality")])
"""What a learning curve needs of a history."""


def draw(storage: Storage) -> dict[str, Figure]:
    """Every figure for which the run directory has the data, by name.

    A frontier for each data set and backbone of results.parquet; learning curves where tables keep a history.

    Raises:
        RunDirectoryError: as `read_results` does, or where a history cannot be read.
    """
    groups: dict[tuple[str, str], list[Summary]] = {}
    for summary in summarise(read_results(storage)):
        groups.setdefault((summary.dataset, summary.backbone), []).append(summary)
    figures = {}
    for number, (group, summaries) in enumerate(groups.items(), start=1):
        # Names come from the data: only what is safe in a path stays, and the number keeps them apart.
        slug = re.sub(r"[^a-z0-9]+", "-", "-".join(group).lower()).strip("-")
        figures["frontier" if len(groups) == 1 else f"frontier-{number}-{slug}"] = frontier(summaries)
    histories = read_histories(storage)
    if histories:
        figures["learning"] = learning(histories)
    return figures


def read_histories(storage: Storage) -> dict[str, list[tuple[int, float]]]:
    """(epoch, validation quality of Eq. 8) by table, from every tables/<name>/history.parquet there is.

    Epochs without an evaluation have no point, and tables without one no entry.

    Raises:
        RunDirectoryError: a file that is not a history.
    """
    histories = {}
    for name in storage.child("tables").names():
        file = f"tables/{name}/history.parquet"
        if not storage.exists(file):
            continue
        table = read_columns(storage, file, CURVE, "Delete the file to go without its learning curve.")
        points = zip(table["epoch"].to_pylist(), table["quality"].to_pylist(), strict=True)
        evaluated = [(epoch, quality) for epoch, quality in points if quality is not None]
        if evaluated:
            histories[name] = evaluated
    return histories


def frontier(summaries: list[Summary]) -> Figure:
    """Test Recall@20 and NDCG@20 against the sparsity reached, a line a method, for one data set and backbone.

    Bars are one sample standard deviation over seeds to each side; a full table is a dashed line; hollow markers are
    the paper's Table 1 for the same methods, at the sparsity it reports.
    """
    dataset, backbone = summaries[0].dataset, summaries[0].backbone
    methods = {summary.method for summary in summaries}
    paper = [
        cell
        for cell in cells()
        if (cell.table, cell.dataset, cell.backbone) == (1, dataset, backbone) and cell.method in methods
    ]
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    panels = figure.subplots(1, len(FRONTIER_METRICS))
    handles: dict[str, Line2D] = {}
    for axes, (metric, k) in zip(panels, FRONTIER_METRICS, strict=True):
        handles |= _frontier_lines(axes, summaries, metric, k)
        handles |= _paper_points(axes, [cell for cell in paper if (cell.metric, cell.k) == (metric, k)])
        if all(summary.method == "full" for summary in summaries):
            axes.set_xlim(0, 100)
        finish(axes, "sparsity (% of parameters removed)", f"test {metric}@{k}")
    figure.suptitle(plain(f"{dataset}, {backbone}"))
    figure.legend(list(handles.values()), list(handles), loc="outside right upper", frameon=False)
    return figure


def learning(histories: dict[str, list[tuple[int, float]]]) -> Figure:
    """Validation quality (Eq. 8) against epoch, a line a table, with a dot at its best epoch.

    The colour is the method's, the dashes follow the target; seeds look the same and share an entry of the legend.

    Args:
        histories: (epoch, quality) in order of epochs, by name of the table, `<method>[-c<percent>]-s<seed>`.
    """
    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    axes = figure.subplots()
    names = {table: re.sub(r"-s\d+$", "", table) for table in histories}
    targets = sorted({_target(name) for name in names.values()} - {0.0})
    handles: dict[str, Line2D] = {}
    for table in sorted(histories, key=lambda table: (method_rank(_method(table)), _target(names[table]), table)):
        name, points = names[table], histories[table]
        dashes = LINES[targets.index(_target(name)) % len(LINES)] if _target(name) else "-"
        best = max(range(len(points)), key=lambda position: points[position][1])
        (line,) = axes.plot(
            *zip(*points, strict=True),
            color=style_of(_method(table)).color,
            linestyle=dashes,
            linewidth=1.2,
            alpha=0.85,
            marker="o",
            markersize=4,
            markevery=[best],
        )
        handles.setdefault(plain(name), line)
    finish(axes, "epoch", "validation quality (Eq. 8)")
    figure.legend(
        list(handles.values()), list(handles), loc="outside right upper", frameon=False, title="dot: best epoch"
    )
    return figure


def _frontier_lines(axes: Axes, summaries: list[Summary], metric: str, k: int) -> dict[str, Line2D]:
    """Draw and return what stands for each label in a legend, in its order."""
    by_label: dict[str, list[tuple[float, Estimate]]] = {}
    method_of: dict[str, str] = {}
    for summary in summaries:
        quality = summary.metrics.get(("test", metric, k))
        if quality is not None:
            percent = 100 * sum(summary.sparsities) / len(summary.sparsities)
            by_label.setdefault(summary.label, []).append((percent, quality))
            method_of[summary.label] = summary.method
    handles: dict[str, Line2D] = {}
    seen: Counter[str] = Counter()
    for label in sorted(by_label, key=lambda label: (method_rank(method_of[label]), label)):
        method, points = method_of[label], sorted(by_label[label], key=lambda point: point[0])
        style, dashes = style_of(method), LINES[seen[method] % len(LINES)]
        fill = FILLS[seen[method] % len(FILLS)]
        seen[method] += 1
        if method == "full":
            for _, quality in points:
                handles[plain(label)] = axes.axhline(quality.mean, color=style.color, linestyle="--", linewidth=1.2)
                if quality.sd:
                    axes.axhspan(
                        quality.mean - quality.sd, quality.mean + quality.sd, color=style.color, alpha=0.08, linewidth=0
                    )
            continue
        percents, means = [percent for percent, _ in points], [quality.mean for _, quality in points]
        deviations = [quality.sd or 0.0 for _, quality in points]
        (handles[plain(label)],) = axes.plot(
            percents, means, color=style.color, marker=style.marker, linestyle=dashes, fillstyle=fill
        )
        if any(deviations):
            axes.errorbar(percents, means, yerr=deviations, fmt="none", ecolor=style.color, capsize=3)
    return handles


def _paper_points(axes: Axes, paper: list[Cell]) -> dict[str, Line2D]:
    handles: dict[str, Line2D] = {}
    for method in sorted({cell.method for cell in paper}, key=method_rank):
        points = [(100 * cell.reported_sparsity, cell.value) for cell in paper if cell.method == method]
        (handles[f"{method}, paper"],) = axes.plot(
            *zip(*points, strict=True),
            color=style_of(method).color,
            marker=style_of(method).marker,
            markerfacecolor="none",
            markersize=9,
            linestyle="none",
            zorder=3,
        )
    return handles


def _method(table: str) -> str:
    return table.split("-")[0]


def _target(name: str) -> float:
    """Target sparsity in percent from the name of a table, 0 without one."""
    found = re.search(r"-c(\d+(?:\.\d+)?)(?:-|$)", name)
    return float(found[1]) if found else 0.0
