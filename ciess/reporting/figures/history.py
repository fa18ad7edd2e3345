"""Figures of history.parquet: what the episodes of a search brought, and what its agents did in each iteration.

Every function returns a matplotlib Figure and touches no global state.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ciess.reporting.figures.style import Style, finish, plain
from ciess.storage.columns import SIDES

Column = npt.NDArray[Any]

SIDE_STYLES = {"users": Style("#882255", "o"), "items": Style("#999933", "s")}
"""Look of users and items: colours of Tol, as those of Okabe and Ito stand for methods."""

STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "actor": ("actor_size", {"color": "#000000", "linewidth": 1.8}),
    "after noise": ("noisy_size", {"color": "#999999", "linewidth": 1.2}),
    "after walk": ("walk_size", {"color": "#4477AA", "linewidth": 1.2}),
    # Without a projection these are the sizes after the walk: a broad line still shows below a narrow one.
    "fitted": ("size", {"color": "#EEAABB", "linewidth": 4.0, "zorder": 1.5}),
}
"""Column and look of each step from what an actor wants to what is fitted."""

PRICE_LOOK = {"color": "#000000", "linewidth": 1.6, "linestyle": ":"}


def episodes(
    history: pa.Table, other: pa.Table | None = None, labels: tuple[str, str] = ("with random walk", "without")
) -> Figure:
    """Figure 3 of the paper: average reward (Eq. 10) and average fitted size against the training episode.

    Users and items are averaged apart, over the iterations of an episode; the thin lines are its last iteration, all
    that the published code records. A row of panels for each target sparsity.

    Args:
        history: rows of HISTORY, at least one.
        other: those of a second run, dashed.
        labels: of the two runs, shown where there are two.
    """
    runs = [_columns(run) for run in (history, other) if run is not None]
    targets = _targets(runs)
    figure = Figure(figsize=(9.6, 0.4 + 3.4 * len(targets)), layout="constrained")
    grid = figure.subplots(len(targets), 2, squeeze=False)
    handles: dict[str, Line2D] = {}
    for panels, target in zip(grid, targets, strict=True):
        for run, label, dashes in zip(runs, labels, ("-", "--"), strict=False):
            rows = _at_target(run, target)
            for side in SIDES if len(rows["episode"]) else ():
                name = plain(f"{side}, {label}" if len(runs) > 1 else side)
                for axes, column in zip(panels, ("reward", "size"), strict=True):
                    handles[name] = _draw_episodes(axes, rows, f"{side}_{column}", SIDE_STYLES[side], dashes)
        finish(panels[0], "training episode", "average reward (Eq. 10)")
        finish(panels[1], "training episode", "average size (dimensions)")
        panels[0].set_title(_title(target), loc="left", fontsize="medium")
    for axes in grid.flat:
        axes.set_xlim(0, 1 + max(int(run["episode"].max(initial=1)) for run in runs))
    handles["thin: last iteration"] = Line2D([], [], color="0.3", linewidth=0.8, alpha=0.6)
    figure.legend(list(handles.values()), list(handles), loc="outside right upper", frameon=False)
    return figure


def iterations(history: pa.Table) -> Figure:
    """What actor, noise, walk and projection each did, against the running number of the short fit.

    With several lanes, the mean over those of a round that serve a target stands at the round's last fit. Four panels
    for each target sparsity: mean size of users and of items after each step (log axes), mean quality ratio (Eq. 7),
    memory weight and losses of the critics (log axis). Grey verticals begin an episode. What is not a finite number is
    left out.

    Args:
        history: rows of HISTORY, at least one.
    """
    columns = _columns(history)
    targets = _targets([columns])
    lanes = int(columns["lane"].max()) + 1
    places = np.stack([(columns["episode"] - 1) // lanes, columns["iteration"]], axis=1)
    found, rounds = np.unique(places, axis=0, return_inverse=True)
    fits = lanes * np.arange(1, len(found) + 1)
    starts = fits[found[:, 1] == found[:, 1].min()] - lanes / 2
    figure = Figure(figsize=(9.6, 0.4 + 5.2 * len(targets)), layout="constrained")
    grid = figure.subplots(2 * len(targets), len(SIDES), squeeze=False, sharex=True)
    for target, size_panels, (ratio, agent) in zip(targets, grid[::2], grid[1::2], strict=True):
        chosen = _serves(columns, target)

        def draw(axes: Axes, name: str, look: dict[str, Any], chosen: Column = chosen) -> None:
            _line(axes, fits, _means(columns[name][chosen], rounds.reshape(-1)[chosen], len(found)), look)

        for axes, side in zip(size_panels, SIDES, strict=True):
            for column, look in STAGES.values():
                draw(axes, f"{side}_{column}", look)
            finish(axes, "", f"mean size of {side} (dimensions)")
            _double_ticks(axes)
            draw(ratio, f"{side}_quality_ratio", _look(side))
            draw(agent, f"{side}_critic_loss", _look(side))
        draw(agent, "memory_weight", PRICE_LOOK)
        finish(ratio, "", "mean quality ratio (Eq. 7)")
        finish(agent, "", "critic loss, memory weight")
        if any((line.get_ydata() > 0).any() for line in agent.lines):
            agent.set_yscale("log", nonpositive="mask")
        size_panels[0].set_title(_title(target), loc="left", fontsize="medium")
    for axes in grid.flat:
        axes.set_xlim(0, fits[-1] + lanes)
        # Episodes take the place of the vertical grid lines.
        axes.grid(False, axis="x")
        axes.set_xticks(starts, minor=True)
        axes.xaxis.remove_overlapping_locs = False
        axes.tick_params(axis="x", which="minor", length=0)
        axes.grid(True, axis="x", which="minor", alpha=0.25)
    for axes in grid[-1]:
        axes.set_xlabel("short fit" if lanes == 1 else f"short fit (rounds of {lanes} lanes)")
    looks = {label: look for label, (_, look) in STAGES.items()} | {side: _look(side) for side in SIDES}
    looks["memory weight"] = PRICE_LOOK
    figure.legend(
        [Line2D([], [], **look) for look in looks.values()], list(looks), loc="outside right upper", frameon=False
    )
    return figure


def _draw_episodes(axes: Axes, rows: dict[str, Column], column: str, style: Style, dashes: str) -> Line2D:
    numbers, groups = np.unique(rows["episode"], return_inverse=True)
    order = np.lexsort((rows["iteration"], rows["episode"]))
    ends = np.cumsum(np.bincount(groups)) - 1
    axes.plot(numbers, rows[column][order][ends], color=style.color, linestyle=dashes, linewidth=0.8, alpha=0.6)
    (line,) = axes.plot(
        numbers,
        _means(rows[column], groups, len(numbers)),
        color=style.color,
        linestyle=dashes,
        marker=style.marker,
        markersize=4,
        markerfacecolor=style.color if dashes == "-" else "white",
    )
    return line


def _line(axes: Axes, x: Column, y: Column, look: dict[str, Any]) -> None:
    """A line with gaps where y is NaN; a point between two gaps, which a line cannot show, is a dot."""
    known = np.concatenate([[False], np.isfinite(y), [False]])
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:]).tolist()
    axes.plot(x, y, **look, marker="o", markersize=2 + look["linewidth"], markevery=alone)


def _look(side: str) -> dict[str, Any]:
    return {"color": SIDE_STYLES[side].color, "linewidth": 1.2}


def _double_ticks(axes: Axes) -> None:
    """A log axis from a power of two below what is drawn to one above, labelled at each."""
    drawn = np.concatenate([line.get_ydata() for line in axes.lines])
    if not (drawn > 0).any():
        return  # a side whose rows all have no dimension
    exponents = np.log2(drawn[drawn > 0])
    low, high = np.floor(exponents.min(initial=10.0)), np.ceil(exponents.max(initial=0.0))
    axes.set_yscale("log", base=2, nonpositive="mask")
    axes.yaxis.set_major_locator(FixedLocator([2.0**power for power in range(int(low), int(high) + 1)]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0.9 * 2.0**low, 1.1 * 2.0**high)


def _columns(history: pa.Table) -> dict[str, Column]:
    """Columns by name; nulls are NaN."""
    return {name: history[name].to_numpy() for name in history.column_names}


def _targets(runs: Sequence[dict[str, Column]]) -> list[float | None]:
    """Target sparsities of these runs, None for rows without one."""
    found = {None if np.isnan(target) else float(target) for run in runs for target in run["target_sparsity"]}
    return sorted(found, key=lambda target: -1.0 if target is None else target)


def _serves(columns: dict[str, Column], target: float | None) -> npt.NDArray[np.bool_]:
    wanted = columns["target_sparsity"]
    serves: npt.NDArray[np.bool_] = np.isnan(wanted) if target is None else wanted == target
    return serves


def _at_target(columns: dict[str, Column], target: float | None) -> dict[str, Column]:
    chosen = _serves(columns, target)
    return {name: values[chosen] for name, values in columns.items()}


def _means(values: Column, groups: Column, count: int) -> npt.NDArray[np.float64]:
    """Mean of the finite values of each group, NaN where there is none."""
    finite = np.isfinite(values)
    sums = np.bincount(groups[finite], values[finite], count)
    counts = np.bincount(groups[finite], minlength=count)
    means: npt.NDArray[np.float64] = np.divide(sums, counts, out=np.full(count, np.nan), where=counts > 0)
    return means


def _title(target: float | None) -> str:
    return "" if target is None else f"target sparsity {100 * target:g} %"
