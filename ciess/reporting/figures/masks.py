"""Figures of masks: what those that a search has visited are worth, and to whom they give dimensions.

Every function returns a matplotlib Figure and touches no global state.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ciess.masks.budget import sparsity
from ciess.masks.mask import Mask, row_sizes
from ciess.reporting.figures.history import SIDE_STYLES
from ciess.reporting.figures.style import STYLES, finish, plain, style_of
from ciess.reporting.summaries import method_rank
from ciess.storage.columns import SIDES

BINS = 20
ROWS_A_BIN = 20
"""Fewer have quantiles that only show noise."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BANDS = ((0, 4, 0.2, 90), (1, 3, 0.35, 50))
"""Quantile below, quantile above, opacity, and share of the rows in percent."""

NO_DEGREE = 0.5
"""Where degree 0 stands on the log axis."""

EQUAL = STYLES["equal"]
FILLS: tuple[Literal["full", "left", "bottom", "right", "top"], ...] = ("full", "left", "bottom", "right", "top")


class Retrained(NamedTuple):
    """A fully trained table.

    Attributes:
        label: the method, and what else the legend shall say after a space.
        quality: Eq. 8 on validation.
        selected: it is the one to take for its budget.
    """

    label: str
    sparsity: float
    quality: float
    selected: bool


@dataclass(frozen=True, eq=False)
class Allocation:
    """A mask and how popular its rows are, users first.

    Attributes:
        title: what the mask is, for the reader.
        degrees: training interactions of each row, int64[n].
        target_sparsity: the budget that it was made for, if any.
    """

    title: str
    mask: Mask
    degrees: npt.NDArray[np.int64]
    n_users: int
    target_sparsity: Fraction | None = None

    @property
    def equal_size(self) -> int:
        """The largest equal size within the budget; without one, that needs no more parameters than the mask."""
        if self.target_sparsity is not None:
            return math.floor((1 - self.target_sparsity) * self.mask.max_size)
        return int(row_sizes(self.mask).sum()) // len(self.degrees)


def visited(candidates: pa.Table, retrained: Sequence[Retrained], reference_quality: float | None) -> Figure:
    """Validation quality (Eq. 8) against sparsity, of every mask after its short fit and of the retrained tables.

    A short fit stops early, so that the two kinds of quality must not be compared with each other.

    Args:
        candidates: rows of CANDIDATES, at least one; the colour of a searched one is its episode.
        retrained: fully trained tables; those without sparsity are lines, as is reference_quality, that of the
            full-size model.
        reference_quality: validation quality of the full-size model, None without one.
    """
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    axes = figure.subplots()
    percents = 100 * candidates["sparsity"].to_numpy()
    quality, episode = candidates["quality"].to_numpy(), candidates["episode"].to_numpy()
    equal = np.array(candidates["origin"].to_pylist(), dtype=object) == "equal"
    if not equal.all():
        points = axes.scatter(
            percents[~equal],
            quality[~equal],
            c=episode[~equal],
            cmap="viridis",
            s=16,
            alpha=0.8,
            linewidths=0,
            label="short fit: searched",
        )
        if len(set(episode[~equal])) > 1:
            ticks = MaxNLocator(integer=True)
            figure.colorbar(
                points, ax=axes, location="bottom", label="episode of the searched mask", ticks=ticks, aspect=50
            )
    if equal.any():
        axes.plot(
            percents[equal],
            quality[equal],
            color=EQUAL.color,
            marker=EQUAL.marker,
            markerfacecolor="none",
            markersize=7,
            linestyle="none",
            label="short fit: equal sizes",
        )
    _draw_retrained(axes, retrained)
    selected = [(100 * table[1], table[2]) for table in retrained if table[3]]
    if selected:
        axes.plot(
            *zip(*selected, strict=True),
            color="black",
            marker="o",
            markersize=17,
            markerfacecolor="none",
            linestyle="none",
            label="retrained: selected",
        )
    if reference_quality is not None:
        axes.axhline(reference_quality, color="black", linestyle="--", linewidth=1.2, label="reference, fully trained")
    axes.margins(0.08)
    axes.set_xlim(right=min(100.0, axes.get_xlim()[1]))
    finish(axes, "sparsity (% of parameters removed)", "validation quality (Eq. 8)")
    entries = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(entries.values()), list(entries), loc="outside right upper", frameon=False)
    return figure


def allocation(groups: Sequence[Allocation]) -> Figure:
    """Sizes against training interactions, users and items apart, a row of panels for each of the groups, at least 1.

    The rows of a table are binned by popularity: the line is the median of each bin, the bands hold its middle 50 %
    and 90 %. The dots are the rows, moved by less than half a unit each way, so that equal ones do not hide each other.
    The dashed line is `Allocation.equal_size`.
    """
    figure = Figure(figsize=(9.6, 0.4 + 3.4 * len(groups)), layout="constrained")
    grid = figure.subplots(len(groups), len(SIDES), squeeze=False, sharey="row")
    for panels, group in zip(grid, groups, strict=True):
        sizes = row_sizes(group.mask)
        kept = float(sizes.sum())
        equal = group.equal_size
        share = 100 * float(sparsity(group.mask))
        headings = (
            plain(group.title),
            f"sparsity {share:.1f} %, mean size {kept / len(sizes):.1f}, equal size {equal}",
        )
        parts = (slice(0, group.n_users), slice(group.n_users, None))
        for axes, heading, side, part in zip(panels, headings, SIDES, parts, strict=True):
            _draw_side(axes, sizes[part], group.degrees[part], side)
            axes.axhline(equal, color=EQUAL.color, linestyle="--", linewidth=1.5)
            mean = sizes[part].sum() / max(1, len(sizes[part]))
            axes.set_title(f"{heading}\n{side}: mean size {mean:.1f}", loc="left", fontsize="medium")
            finish(axes, "", "")
            _popularity_axis(axes, group.degrees[part])
        panels[0].yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        panels[0].set_ylim(0, 1.05 * sizes.max(initial=0) + 0.5)
        panels[0].set_ylabel("size (dimensions)")
    for axes in grid[-1]:
        axes.set_xlabel("training interactions")
    handles = [
        Line2D([], [], color="0.3", marker="o", markersize=4, label="median"),
        *(
            Patch(color="0.3", alpha=alpha, linewidth=0, label=f"middle {share} %")
            for _, _, alpha, share in reversed(BANDS)
        ),
        Line2D([], [], color=EQUAL.color, linestyle="--", linewidth=1.5, label="equal size"),
        Line2D([], [], color="0.55", marker=".", markersize=4, linestyle="none", label="each user or item"),
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def _draw_retrained(axes: Axes, retrained: Sequence[Retrained]) -> None:
    """Points in the look of their method, and lines for tables without sparsity; labels of a method differ in fill."""
    fills: dict[str, list[str]] = {}
    for label, share, value, _ in sorted(retrained, key=lambda table: (method_rank(table[0].split()[0]), table[0])):
        method, name = label.split()[0], f"retrained: {plain(label)}"
        style, labels = style_of(method), fills.setdefault(method, [])
        if label not in labels:
            labels.append(label)
        if share == 0:
            axes.axhline(value, color=style.color, linestyle=":", linewidth=1.2, label=name)
            continue
        axes.plot(
            100 * share,
            value,
            color=style.color,
            marker=style.marker,
            markersize=9,
            markeredgecolor="black",
            markerfacecoloralt="white",
            fillstyle=FILLS[labels.index(label) % len(FILLS)],
            linestyle="none",
            label=name,
        )


def popularity_bins(degrees: npt.NDArray[np.int64], bins: int = BINS) -> npt.NDArray[np.int64]:
    """Bin of each row by its degree, int64[n], counted from 0: about as many rows in each of at most `bins`.

    Rows of equal degree share a bin, and degree 0 has one more for itself.
    """
    _, level, counts = np.unique(degrees, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    quantile = 1 + (middle * bins // max(1, len(degrees))).astype(np.int64)
    return np.unique(np.where(degrees == 0, 0, quantile[level]), return_inverse=True)[1].astype(np.int64)


def _draw_side(axes: Axes, sizes: npt.NDArray[np.float64], degrees: npt.NDArray[np.int64], side: str) -> None:
    style = SIDE_STYLES[side]
    generator = np.random.Generator(np.random.PCG64(0))
    reach = np.where(degrees > 0, 0.4, 0.08)
    axes.scatter(
        np.maximum(degrees, NO_DEGREE) + reach * generator.uniform(-1, 1, len(degrees)),
        sizes + generator.uniform(-0.4, 0.4, len(sizes)),
        s=2.5,
        color="0.55",
        alpha=min(0.4, max(0.08, 2000 / max(1, len(sizes)))),
        linewidths=0,
        zorder=1,
    )
    bins = popularity_bins(degrees, min(BINS, max(1, len(degrees) // ROWS_A_BIN)))
    members = [bins == number for number in range(int(bins.max(initial=-1)) + 1)]
    if not members:
        return
    x = np.array([max(NO_DEGREE, float(np.median(degrees[member]))) for member in members])
    bands = np.array([np.quantile(sizes[member], QUANTILES) for member in members])
    if len(members) == 1:
        # A band needs a width to be seen.
        x, bands = x * np.array([0.9, 1.1]), np.repeat(bands, 2, axis=0)
    for low, high, alpha, _ in BANDS:
        axes.fill_between(x, bands[:, low], bands[:, high], color=style.color, alpha=alpha, linewidth=0)
    axes.plot(x, bands[:, 2], color=style.color, marker=style.marker, markersize=4)


def _popularity_axis(axes: Axes, degrees: npt.NDArray[np.int64]) -> None:
    """A log axis of at least a decade, with a place for degree 0 where there is one."""
    shown = np.maximum(degrees, NO_DEGREE) if len(degrees) else np.ones(1)
    low, high = float(shown.min()) / 1.25, float(shown.max()) * 1.25
    if high < 10 * low:
        low, high = (low * high / 10) ** 0.5, (low * high * 10) ** 0.5
    steps = (1,) if high > 500 * low else (1, 2, 5)
    ticks = [step * 10**power for power in range(len(str(int(high)))) for step in steps]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([NO_DEGREE, *ticks] if shown.min() == NO_DEGREE else ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda degree, _: _short(degree)))
    axes.xaxis.set_minor_locator(NullLocator())


def _short(degree: float) -> str:
    if degree == NO_DEGREE:
        return "0"
    unit, name = next(unit for unit in ((1e6, "M"), (1e3, "k"), (1, "")) if degree >= unit[0])
    return f"{degree / unit:g}{name}"
