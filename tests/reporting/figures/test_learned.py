import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from ciess.masks.mask import PrefixMask, SparseMask, row_sizes
from ciess.reporting.figures.learned import draw_learned, learned
from ciess.reporting.figures.style import png

HISTORY = pa.table(
    {
        "stage": ["supernet", "supernet", "evolution", "evolution"],
        "step": [10, 20, 1, 2],
        "loss": pa.array([0.5, 0.25, None, None]),
        "kept_share": pa.array([1.0, 0.5, 0.5, 0.25]),
        "kept": pa.array([8, 4, None, 2]),
        "words": ["a", "b", "c", "d"],
        "epoch": [1, 2, 3, 4],
    }
)


def lines(figure: Figure) -> dict[str, list[list[tuple[float, float]]]]:
    return {
        axes.get_ylabel(): [list(zip(*line.get_data(), strict=True)) for line in axes.lines]
        for axes in figure.axes
        if axes.axison
    }


def test_a_panel_a_number_and_a_line_a_stage() -> None:
    figure = learned("optembed-s0", HISTORY)
    assert lines(figure) == {
        "loss": [[(10, 0.5), (20, 0.25)]],
        "kept share": [[(10, 1.0), (20, 0.5)], [(1, 0.5), (2, 0.25)]],
        "kept": [[(10, 8), (20, 4)], [(2, 2)]],
    }
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["supernet", "evolution"]
    colors = {handle.get_color() for handle in legend.legend_handles}
    assert len(colors) == 2


def test_a_single_point_can_be_seen() -> None:
    (only,) = [line for axes in learned("x", HISTORY).axes for line in axes.lines if len(line.get_xdata()) == 1]
    assert only.get_marker() == "o"


def test_sizes_of_masks_that_keep_any_entries() -> None:
    """Of a row the entries that it keeps, a table: those of both tables of NCF count half."""
    dense = np.zeros((3, 8), dtype=bool)
    dense[0, [0, 3, 4, 7]] = True
    dense[1, 5] = True
    np.testing.assert_array_equal(row_sizes(SparseMask.from_dense(dense, 4)), [2, 0.5, 0])
    np.testing.assert_array_equal(row_sizes(SparseMask.from_dense(dense, 8)), [4, 1, 0])
    np.testing.assert_array_equal(row_sizes(PrefixMask(np.array([3, 0, 8], np.int16), 8)), [3, 0, 8])


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_both_figures_can_be_drawn(share: float) -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    mask = SparseMask.from_dense(generator.random((60, 32)) < share, 16)
    degrees = generator.integers(0, 50, 60)
    drawn = draw_learned("pep-s0", HISTORY, [("pep-c90-s0", mask, None), ("pep-c95-s0", mask, None)], 40, degrees)
    assert list(drawn) == ["learned-pep-s0", "allocation-pep-s0"]
    titles = [axes.get_title(loc="left") for axes in drawn["allocation-pep-s0"].axes]
    assert titles[0].startswith("pep-c90-s0\nusers: mean size ")
    mean = row_sizes(mask)[:40].mean()
    assert titles[0].endswith(f"mean size {mean:.1f}")
    assert all(png(figure).startswith(b"\x89PNG") for figure in drawn.values())
