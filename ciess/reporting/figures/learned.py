"""Figures of a learned method: how it found its masks, and to whom they give dimensions.

Every function returns matplotlib Figures and touches no global state.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import cycle

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ciess.masks.mask import Mask
from ciess.reporting.figures.masks import Allocation, allocation
from ciess.reporting.figures.style import finish, plain

COLUMNS_OF_PANELS = 3
COLORS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#66CCEE", "#CCBB44", "#BBBBBB", "#000000")
"""Of stages: colours of Tol, as those of Okabe and Ito stand for methods."""


def draw_learned(
    name: str,
    history: pa.Table,
    found: Sequence[tuple[str, Mask, Fraction | None]],
    n_users: int,
    degrees: npt.NDArray[np.int64],
) -> dict[str, Figure]:
    """`learned-<name>`: what the method noted; `allocation-<name>`: the sizes of its masks against popularity.

    Of a mask that keeps any entries, a row's size is the number that it keeps, a table.

    Args:
        name: of the method and seed, such as pep-s0.
        history: columns `stage` and `step`, and numbers.
        found: title, mask and target sparsity.
        n_users: number of users.
        degrees: training interactions, int64[n], users first.
    """
    groups = [Allocation(title, mask, degrees, n_users, target) for title, mask, target in found]
    return {f"learned-{name}": learned(name, history), f"allocation-{name}": allocation(groups)}


def learned(name: str, history: pa.Table) -> Figure:
    """A panel for each number that a method noted, against its steps, a line a stage."""
    numbers = [
        column
        for column in history.column_names
        if column not in ("stage", "step", "epoch")
        and (pa.types.is_integer(history[column].type) or pa.types.is_floating(history[column].type))
    ]
    stages = list(dict.fromkeys(history["stage"].to_pylist()))
    stage = np.array(history["stage"].to_pylist(), dtype=object)
    step = history["step"].to_numpy()
    columns = min(COLUMNS_OF_PANELS, max(1, len(numbers)))
    rows = -(-max(1, len(numbers)) // columns)
    figure = Figure(figsize=(3.6 * columns + 1.4, 0.4 + 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    colors = dict(zip(stages, cycle(COLORS), strict=False))
    handles: dict[str, Line2D] = {}
    for axes, column in zip(grid, numbers, strict=False):
        values = history[column].to_numpy().astype(np.float64)
        for own in stages:
            shown = (stage == own) & np.isfinite(values)
            if shown.any():
                marker = "o" if shown.sum() == 1 else ""
                (line,) = axes.plot(
                    step[shown], values[shown], color=colors[own], linewidth=1.4, marker=marker, markersize=4
                )
                handles.setdefault(plain(own), line)
        finish(axes, "step", plain(column.replace("_", " ")))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in grid[len(numbers) :]:
        axes.set_axis_off()
    figure.suptitle(plain(name))
    figure.legend(list(handles.values()), list(handles), loc="outside right upper", frameon=False, title="stage")
    return figure
