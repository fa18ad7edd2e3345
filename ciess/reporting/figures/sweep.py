"""Figures of a sweep: how good the masks are that searches with different memory weights have found.

Every function returns matplotlib Figures and touches no global state.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from ciess.errors import RunDirectoryError
from ciess.reporting.figures.results import FRONTIER_METRICS
from ciess.reporting.figures.style import Style, finish, plain
from ciess.reporting.summaries import estimate
from ciess.storage.columns import EQUAL_WON, SEARCHED

Row = dict[str, Any]

BUDGET_STYLES = tuple(map(Style, ("#332288", "#44AA99", "#CC6677", "#117733", "#AA4499", "#DDCC77"), "os^DvP"))
"""Look of the budgets, smallest sparsity first: colours of Tol, as those of Okabe and Ito stand for methods."""

MARKERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("", {}),
    ("hollow: equal sizes were\nbetter on validation", {"markerfacecolor": "white"}),
    ("half: in some of the seeds", {"fillstyle": "left", "markerfacecoloralt": "white"}),
)
"""What the legend says of a marker, and its fill. Equal sizes need not have stood for choice where it is filled."""
FILLED, HOLLOW, HALF = range(len(MARKERS))

LETTER = 0.03
"""Width of a letter of a tick label, as a share of the memory weights' range, with room to spare."""


class _Table(NamedTuple):
    """A tested table. equal_won: validation chose equal sizes instead; values: on test, by metric and cutoff."""

    equal_won: bool
    values: dict[tuple[str, int], float]


def draw_sweep(results: pa.Table, budgets: tuple[float, ...] = ()) -> dict[str, Figure]:
    """Figure 4 of the paper (section 3.6.1): test Recall@20 and NDCG@20 against the memory weight, by name.

    There is a figure for each data set, backbone, noise and walk of the searches, named `memory-weight`, or with what
    differs after it, such as `memory-weight-ncf-nowalk`. A line is a budget: the mean over all searches and seeds of a
    memory weight, bars are one sample standard deviation to each side. It shows the best searched mask, hollow where
    validation chose equal sizes; those are the dashed line of the same colour, their deviation the band around it.

    Args:
        results: rows of RESULTS, of which method `ciess` in budget mode `penalty` and method `equal` are drawn.
        budgets: sparsities that were asked for; the legend names those without a mask.

    Raises:
        RunDirectoryError: a table to draw lacks one of the two metrics on test, or two stand for one search, budget and
            seed.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    equal: dict[tuple[Any, ...], list[Row]] = {}
    for row in results.to_pylist():
        if row["method"] == "ciess" and row["budget_mode"] == "penalty":
            names = ("dataset", "backbone", "noise", "random_walk", "walk_weights")
            groups.setdefault(tuple(row[name] for name in names), []).append(row)
        elif row["method"] == "equal":
            equal.setdefault((row["dataset"], row["backbone"]), []).append(row)
    # One look a budget, in every figure the same.
    found = sorted({row["target_sparsity"] for rows in groups.values() for row in rows}.union(budgets))
    styles = {budget: BUDGET_STYLES[number % len(BUDGET_STYLES)] for number, budget in enumerate(found)}
    figures: dict[str, Figure] = {}
    for group in sorted(groups, key=str):
        shown = {row["target_sparsity"] for row in groups[group]}.union(budgets)
        looks = {budget: style for budget, style in styles.items() if budget in shown}
        name = _name(group, list(groups))
        while name in figures:
            # Names come from the data: two may differ in nothing that is safe in a path.
            name += "-2"
        figures[name] = _draw(_title(*group), groups[group], equal.get(group[:2], []), looks)
    return figures


def _draw(title: str, rows: list[Row], equal_rows: list[Row], looks: dict[float, Style]) -> Figure:
    masks = _tables(rows)
    equals = _tables([row for row in equal_rows if row["target_sparsity"] in masks])
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    fills: set[int] = set()
    for axes, (metric, k) in zip(figure.subplots(1, len(FRONTIER_METRICS)), FRONTIER_METRICS, strict=True):
        for budget, by_weight in sorted(masks.items()):
            fills |= _draw_masks(axes, by_weight, (metric, k), looks[budget])
        for budget, alike in sorted(equals.items()):
            _draw_equal(axes, [table.values[metric, k] for table in alike[None]], looks[budget])
        finish(axes, "memory weight (Eq. 10)", f"test {metric}@{k}")
        _weight_axis(axes, sorted({row["memory_weight"] for row in rows}))
    handles = []
    for budget, style in looks.items():
        color, missing = (style.color, "") if budget in masks else ("none", ": no mask")
        handles.append(Line2D([], [], color=color, marker=style.marker, label=f"{100 * budget:g} %{missing}"))
    if equals:
        handles.append(Line2D([], [], color="0.3", linestyle="--", linewidth=1.2, label="equal sizes"))
    # What half means is said in the words for hollow.
    for label, look in MARKERS[HOLLOW : max(fills, default=FILLED) + 1]:
        handles.append(Line2D([], [], color="0.3", marker="o", markersize=7, linestyle="none", label=label, **look))
    # In the middle of the figure it would run into the legend.
    figure.suptitle(plain(title), x=0.01, horizontalalignment="left", fontsize="medium")
    figure.legend(handles=handles, loc="outside right upper", frameon=False, title="sparsity", alignment="left")
    return figure


def _draw_masks(axes: Axes, by_weight: dict[Any, list[_Table]], metric: tuple[str, int], style: Style) -> set[int]:
    """Draw one budget; returns the fills of its markers."""
    weights = sorted(by_weight)
    points = [estimate([mask.values[metric] for mask in by_weight[weight]]) for weight in weights]
    axes.plot(weights, [point.mean for point in points], color=style.color)
    fills = set()
    for weight, point in zip(weights, points, strict=True):
        won = {mask.equal_won for mask in by_weight[weight]}
        fill = HALF if len(won) > 1 else HOLLOW if True in won else FILLED
        axes.plot(
            weight, point.mean, color=style.color, marker=style.marker, markersize=7, zorder=3, **MARKERS[fill][1]
        )
        fills.add(fill)
        if point.sd:
            axes.errorbar(weight, point.mean, yerr=point.sd, fmt="none", ecolor=style.color, capsize=3)
    return fills


def _draw_equal(axes: Axes, values: list[float], style: Style) -> None:
    mean, sd = estimate(values).mean, estimate(values).sd
    axes.axhline(mean, color=style.color, linestyle="--", linewidth=1.2)
    if sd:
        axes.axhspan(mean - sd, mean + sd, color=style.color, alpha=0.08, linewidth=0)


def _tables(rows: list[Row]) -> dict[float, dict[Any, list[_Table]]]:
    """By budget and memory weight, what stands for each search and seed.

    That is its best searched mask, or for method `equal`, where the weight is None, its table.
    """
    found: dict[tuple[Any, ...], dict[bool, list[Row]]] = {}
    for row in rows:
        names = ("memory_weight", "target_sparsity", "search_id", "seed", "split_seed")
        kinds = found.setdefault(tuple(row[name] for name in names), {True: [], False: []})
        kinds[row["role"] == SEARCHED].append(row)
    tables: dict[float, dict[Any, list[_Table]]] = {}
    for (weight, budget, *_), kinds in found.items():
        equal_won = any(EQUAL_WON in (row["flag"] or "") for row in kinds[False])
        # A run that was cut short may hold the equal sizes that won, but not yet the searched mask beside them.
        if chosen := kinds[True] or ([] if equal_won else kinds[False]):
            values = {(metric, k): _value(chosen, metric, k) for metric, k in FRONTIER_METRICS}
            tables.setdefault(budget, {}).setdefault(weight, []).append(_Table(equal_won, values))
    return tables


def _value(rows: list[Row], metric: str, k: int) -> float:
    found = [row["value"] for row in rows if (row["split"], row["metric"], row["k"]) == ("test", metric, k)]
    if len(found) != 1:
        names = ", ".join(sorted({row["candidate"] for row in rows}))
        raise RunDirectoryError(
            f"results.parquet holds {len(found)} values of test {metric}@{k} for {names}; one value a search, budget "
            "and seed was expected. Keep the rows of one sweep, or start it anew in another folder."
        )
    return float(found[0])


def _weight_axis(axes: Axes, weights: Sequence[float]) -> None:
    """Ticks at the memory weights themselves, as far as their labels have room."""
    reach = weights[-1] - weights[0]
    room = LETTER * reach * max(len(f"{weight:g}") for weight in weights)
    ticks = [weights[0]]
    for weight in weights[1:]:
        if weight - ticks[-1] >= room:
            ticks.append(weight)
    margin = 0.07 * reach or 0.5 * (weights[0] or 1.0)
    axes.set_xlim(weights[0] - margin, weights[-1] + margin)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda weight, _: f"{weight:g}"))


def _name(group: tuple[Any, ...], groups: list[tuple[Any, ...]]) -> str:
    words = list(zip(*(_words(*other) for other in groups), strict=True))
    parts = [word for word, others in zip(_words(*group), words, strict=True) if len({*others} - {""}) > 1]
    return re.sub(r"[^a-z0-9]+", "-", "-".join(["memory-weight", *filter(None, parts)]).lower()).strip("-")


def _words(dataset: str, backbone: str, noise: str, walk: bool, weights: str | None) -> tuple[str, ...]:
    return dataset, backbone, "nonoise" if noise == "none" else noise, "walk" if walk else "nowalk", weights or ""


def _title(dataset: str, backbone: str, noise: str, walk: bool, weights: str | None) -> str:
    return f"{dataset}, {backbone} (noise: {noise}, random walk: {weights if walk else 'none'})"
