from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from ciess import masks
from ciess.masks.mask import PrefixMask
from ciess.reporting.figures.masks import (
    BANDS,
    NO_DEGREE,
    QUANTILES,
    Allocation,
    Retrained,
    allocation,
    popularity_bins,
    visited,
)
from ciess.reporting.figures.style import STYLES, png
from ciess.search.candidates import Candidate, to_table

D = 16


def candidate(episode, quality, sizes, origin="search"):
    mask = PrefixMask(np.array(sizes, np.int16), D)
    return Candidate(episode, 1, 0, float(masks.sparsity(mask)), quality, quality, quality, origin, mask)


def candidates(*found):
    return to_table(list(found), 4)


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def labelled(axes, label):
    return [line for line in axes.lines if line.get_label() == label]


def point(line):
    return [*line.get_xdata(), *line.get_ydata()]


SEARCHED = (candidate(1, 0.15, [8, 8, 8, 8]), candidate(2, 0.14, [4, 4, 4, 4]), candidate(3, 0.13, [1, 2, 4, 1]))
EQUAL = candidate(0, 0.12, [2, 2, 2, 2], "equal")
RETRAINED = [
    Retrained("full", 0.0, 0.31, False),
    Retrained("equal", 0.75, 0.27, False),
    Retrained("ciess (forced)", 0.875, 0.25, False),
    Retrained("ciess", 0.75, 0.28, True),
    Retrained("ciess", 0.75, 0.26, False),
    Retrained("mixed", 0.75, 0.2, False),
]


def test_visited_masks_stand_at_their_sparsity_coloured_by_episode():
    figure = visited(candidates(EQUAL, *SEARCHED), RETRAINED, 0.3)
    axes = figure.axes[0]
    (points,) = (artist for artist in axes.collections if isinstance(artist, PathCollection))
    assert points.get_offsets().tolist() == [[50, 0.15], [75, 0.14], [87.5, 0.13]]
    assert points.get_array().tolist() == [1, 2, 3]
    (equal,) = labelled(axes, "short fit: equal sizes")
    assert point(equal) == [87.5, 0.12]
    assert equal.get_markerfacecolor() == "none"
    assert to_hex(equal.get_markeredgecolor()) == STYLES["equal"].color.lower()
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "sparsity (% of parameters removed)",
        "validation quality (Eq. 8)",
    )
    assert figure.axes[1].get_xlabel() == "episode of the searched mask"


def test_retrained_tables_are_told_from_short_fits():
    figure = visited(candidates(EQUAL, *SEARCHED), RETRAINED, 0.3)
    axes = figure.axes[0]
    assert legend_texts(figure) == [
        "short fit: searched",
        "short fit: equal sizes",
        "retrained: full",
        "retrained: equal",
        "retrained: mixed",
        "retrained: ciess",
        "retrained: ciess (forced)",
        "retrained: selected",
        "reference, fully trained",
    ]
    for label, method, fill, places in (
        ("retrained: equal", "equal", "full", [[75, 0.27]]),
        ("retrained: ciess", "ciess", "full", [[75, 0.28], [75, 0.26]]),
        ("retrained: ciess (forced)", "ciess", "left", [[87.5, 0.25]]),
    ):
        lines = labelled(axes, label)
        assert [point(line) for line in lines] == places
        for line in lines:
            assert (to_hex(line.get_color()), line.get_marker()) == (
                STYLES[method].color.lower(),
                STYLES[method].marker,
            )
            assert line.get_fillstyle() == fill
    (selected,) = labelled(axes, "retrained: selected")
    assert point(selected) == [75, 0.28]
    assert selected.get_markersize() > line.get_markersize()
    (reference,), (full,) = labelled(axes, "reference, fully trained"), labelled(axes, "retrained: full")
    assert list(reference.get_ydata()) == [0.3, 0.3]
    assert list(full.get_ydata()) == [0.31, 0.31]
    assert reference.get_linestyle() == "--" != full.get_linestyle()


@pytest.mark.parametrize("found", [[SEARCHED[0]], [EQUAL], [SEARCHED[0], SEARCHED[0]]])
def test_one_candidate_alone(found):
    figure = visited(candidates(*found), [], None)
    assert len(figure.axes) == 1
    assert legend_texts(figure) == [f"short fit: {'equal sizes' if found == [EQUAL] else 'searched'}"]
    assert png(figure).startswith(b"\x89PNG")


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 6))
def test_bins_hold_every_row_once_by_popularity(degrees, count):
    degrees = np.array(degrees, np.int64)
    bins = popularity_bins(degrees, count)
    assert bins.shape == degrees.shape
    assert sorted(set(bins)) == list(range(len(set(bins))))
    assert len(set(bins[degrees > 0])) <= count
    assert not set(bins[degrees == 0]) & set(bins[degrees > 0])
    order = np.argsort(degrees, kind="stable")
    assert (np.diff(bins[order]) >= 0).all()
    assert (np.diff(bins[order])[np.diff(degrees[order]) == 0] == 0).all()


def test_bins_are_of_equal_size_where_degrees_differ():
    assert np.bincount(popularity_bins(np.arange(1, 101)[::-1], 20)).tolist() == [5] * 20
    assert popularity_bins(np.repeat([3, 9], [40, 60]), 2).tolist() == [0] * 40 + [1] * 60


def bands_of(axes):
    """(x, low, high) of each band, from the outline that was drawn."""
    bands = []
    for collection in axes.collections:
        if isinstance(collection, PathCollection):
            continue
        vertices = collection.get_paths()[0].vertices
        xs = sorted(set(vertices[:, 0]))
        at = [vertices[vertices[:, 0] == x, 1] for x in xs]
        bands.append((xs, [ys.min() for ys in at], [ys.max() for ys in at]))
    return bands


def test_equal_size_is_that_of_the_budget_where_there_is_one() -> None:
    """A mask that overshoots its budget a little is compared with the equal size of the budget."""
    sizes = np.array([7, 8, 8, 8], np.int16)
    for target, size in ((None, 7), (Fraction(1, 2), 8), (Fraction(9, 10), 1)):
        assert Allocation("a", PrefixMask(sizes, 16), np.arange(4), 2, target).equal_size == size


def test_allocation_shows_quantiles_of_all_rows_in_bins():
    generator = np.random.default_rng(0)
    n_users, n = 400, 1000
    degrees = np.concatenate([generator.integers(1, 300, n_users), generator.integers(0, 40, n - n_users)])
    sizes = generator.integers(1, D + 1, n).astype(np.int16)
    figure = allocation([Allocation("best", PrefixMask(sizes, D), degrees, n_users)])
    for axes, part in zip(figure.axes, (slice(0, n_users), slice(n_users, n)), strict=True):
        (dots,) = (artist for artist in axes.collections if isinstance(artist, PathCollection))
        x, y = np.asarray(dots.get_offsets()).T
        assert np.abs(y - sizes[part]).max() < 0.5
        assert np.abs(x - np.maximum(degrees[part], NO_DEGREE)).max() < 0.5
        bins = popularity_bins(degrees[part])
        oracle = np.array([np.quantile(sizes[part][bins == b], QUANTILES) for b in range(bins.max() + 1)])
        middles = [max(NO_DEGREE, np.median(degrees[part][bins == b])) for b in range(bins.max() + 1)]
        median, equal = axes.lines
        assert list(median.get_xdata()) == middles
        assert list(median.get_ydata()) == list(oracle[:, 2])
        assert list(equal.get_ydata()) == [sizes.sum() // n] * 2
        for (xs, lows, highs), (low, high, *_) in zip(bands_of(axes), BANDS, strict=True):
            assert xs == middles
            assert lows == list(oracle[:, low])
            assert highs == list(oracle[:, high])
        lowest, highest = axes.get_xlim()
        assert lowest < middles[0]
        assert middles[-1] < highest
    share, mean = 100 * (1 - sizes.sum() / (n * D)), sizes.mean()
    users, items = figure.axes
    assert users.get_title("left") == f"best\nusers: mean size {sizes[:n_users].mean():.1f}"
    assert items.get_title("left") == (
        f"sparsity {share:.1f} %, mean size {mean:.1f}, equal size {sizes.sum() // n}\n"
        f"items: mean size {sizes[n_users:].mean():.1f}"
    )
    png(figure)
    assert "0" not in [text.get_text() for text in users.get_xticklabels()]
    assert [text.get_text() for text in items.get_xticklabels()][:3] == ["0", "1", "2"]
    assert legend_texts(figure) == ["median", "middle 50 %", "middle 90 %", "equal size", "each user or item"]


def test_degree_zero_has_a_place_and_a_label_of_its_own():
    degrees = np.repeat([7, 0, 1, 30_000], [50, 10, 15, 15])
    sizes = np.repeat([2, 3, 5, 7, 9], [50, 5, 5, 15, 15]).astype(np.int16)
    figure = allocation([Allocation("a", PrefixMask(sizes, D), degrees, 50)])
    png(figure)
    items = figure.axes[1]
    labels = dict(zip(items.get_xticks(), (text.get_text() for text in items.get_xticklabels()), strict=True))
    assert labels == {0.5: "0", 1: "1", 10: "10", 100: "100", 1000: "1k", 10_000: "10k"}
    assert list(items.lines[0].get_xdata()) == [0.5, 1, 30_000]
    assert list(items.lines[0].get_ydata()) == [4, 7, 9]


@pytest.mark.parametrize("degree", [0, 1, 7, 1234])
def test_equal_sizes_and_degrees_can_be_seen(degree):
    mask = masks.equal(40, D, 0.5)
    figure = allocation([Allocation("cost $5", mask, np.full(40, degree), 10)] * 3)
    assert png(figure).startswith(b"\x89PNG")
    assert len(figure.axes) == 6
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert high >= 9.99 * low
        assert any(low < tick < high for tick in axes.get_xticks())
        assert list(axes.lines[0].get_ydata()) == [8, 8]
        assert low < min(axes.lines[0].get_xdata()) < max(axes.lines[0].get_xdata()) < high
        assert axes.get_ylim()[1] > 8


def test_a_side_without_rows():
    figure = allocation([Allocation("a", masks.equal(5, D, 0.5), np.arange(5), 5)])
    assert figure.axes[1].get_title("left").endswith("items: mean size 0.0")
    assert png(figure).startswith(b"\x89PNG")
