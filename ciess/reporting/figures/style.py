"""How every figure looks, and how it becomes a file."""

import io
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ciess.storage.storage import Storage

DPI = 150


@dataclass(frozen=True)
class Style:
    """How a method looks, in every figure the same."""

    color: str
    marker: str


# Colours of Okabe and Ito, told apart with any colour vision; the marker says it a second time.
STYLES = {
    "full": Style("#000000", "."),
    "equal": Style("#0072B2", "o"),
    "mixed": Style("#E69F00", "s"),
    "sized": Style("#8C510A", "p"),
    "ciess": Style("#D55E00", "^"),
    "pep": Style("#009E73", "D"),
    "esapn": Style("#CC79A7", "v"),
    "optembed": Style("#56B4E9", "P"),
}


OTHER_STYLE = Style("#7F7F7F", "X")


LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-",
    "--",
    ":",
    "-.",
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (10, 3)),
)
"""Of budgets, in order."""


FILLS = ("full", "left", "bottom", "right")
"""Of markers of one method's variants, told apart also where a line has one point."""


def save_figures(storage: Storage, pictures: dict[str, bytes]) -> list[str]:
    """Write PNGs by name below figures/ and return their paths in the file system."""
    files = [f"figures/{name}.png" for name in pictures]
    for file, picture in zip(files, pictures.values(), strict=True):
        storage.write_bytes(file, picture)
    return [storage.path(file) for file in files]


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, dpi=DPI)
    return buffer.getvalue()


def finish(axes: Axes, x_label: str, y_label: str) -> None:
    """Labels, whole ticks on x, and a light frame: the look of every figure."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def style_of(method: str) -> Style:
    """How a method looks; one without a style of its own gets the same grey as others."""
    return STYLES.get(method, OTHER_STYLE)


def plain(text: str) -> str:
    """Text in which matplotlib sees no mathematics."""
    return text.replace("$", r"\$")
