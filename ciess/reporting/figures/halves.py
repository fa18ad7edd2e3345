"""Figure of a search that sees one half of validation and chooses on the other: both curves, fit by fit."""

from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from ciess.reporting.figures.style import STYLES, finish

CURVES = {"quality": ("pairs searched by", "#4477AA"), "choice_quality": ("pairs chosen by", "#D55E00")}
"""Column -> what it was measured on, and its colour (Tol; Okabe and Ito)."""

BESIDE = ("equal", "sized")


def halves(history: pa.Table, candidates: pa.Table) -> Figure:
    """Quality (Eq. 8) of every fit on both halves, and the best so far; a panel a budget.

    Points are fits, lines the best so far by the pairs that are searched by, on either half: where the second falls
    while the first rises, the search over-fits. Horizontals are sizes by rule.

    Args:
        history: rows of HISTORY, with choice_quality.
        candidates: rows of CANDIDATES.

    Returns:
        the figure.
    """
    rows = history.to_pylist()
    targets = sorted({row["target_sparsity"] for row in rows}, key=lambda target: -1 if target is None else target)
    figure = Figure(figsize=(9.6, 0.4 + 3.2 * len(targets)), layout="constrained")
    grid = figure.subplots(len(targets), 1, squeeze=False)
    once: dict[str, Any] = {}
    beside = [row for row in candidates.to_pylist() if row["origin"] in BESIDE]
    for axes, target in zip(grid[:, 0], targets, strict=True):
        own = [row for row in rows if row["target_sparsity"] == target]
        found = np.array([row["quality"] for row in own])
        best = np.array([int(found[: place + 1].argmax()) for place in range(len(found))])
        fits = np.arange(1, len(own) + 1)
        for column, (label, color) in CURVES.items():
            values = np.array([row[column] for row in own], np.float64)
            axes.plot(fits, values, ".", color=color, markersize=3, alpha=0.35)
            axes.plot(fits, values[best], color=color, linewidth=1.8, label=f"best by search, on {label}")
        for row in beside:
            # A rule uses its budget up, so another budget's is farther away.
            if target is not None and abs(row["sparsity"] - target) < 5e-4 and row["choice_quality"] is not None:
                style = STYLES[row["origin"]]
                label = f"{row['origin']}, on pairs chosen by"
                axes.axhline(row["choice_quality"], color=style.color, linestyle="--", linewidth=1.2, label=label)
        finish(axes, "short fit", "quality (Eq. 8)")
        axes.set_title("" if target is None else f"{100 * target:g} %", loc="left", fontsize="medium")
        handles, labels = axes.get_legend_handles_labels()
        once |= dict(zip(labels, handles, strict=True))
    figure.legend(list(once.values()), list(once), loc="outside upper center", ncol=2, frameon=False)
    return figure
