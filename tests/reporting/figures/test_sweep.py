import subprocess
import sys

import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from ciess.errors import RunDirectoryError
from ciess.reporting.figures.history import SIDE_STYLES
from ciess.reporting.figures.style import STYLES, png
from ciess.reporting.figures.sweep import BUDGET_STYLES, draw_sweep
from ciess.storage.columns import EQUAL_WON, RESULTS

NDCG = 1.75
"""Test NDCG@20 of a made-up table over its Recall@20."""


def rows_of(method, name, budget, recall, **columns):
    """Rows of a table, with what a figure of test Recall@20 and NDCG@20 must not take for it."""
    row = {"dataset": "ml-1m", "backbone": "lightgcn", "seed": 0} | columns
    row |= {"method": method, "candidate": f"{method}-c{100 * budget:g}-{name}", "target_sparsity": budget}
    values = [("test", "Recall", 20, recall), ("test", "NDCG", 20, NDCG * recall), ("test", "Recall", 10, 0.9)]
    values += [("valid", "Recall", 20, 0.9), ("valid", "NDCG", 20, 0.9), ("test", "quality", None, 0.9)]
    return [row | {"split": split, "metric": metric, "k": k, "value": value} for split, metric, k, value in values]


def mask(weight, budget, recall, search="a", variant="", **columns):
    """A table of a search in the mode of the paper."""
    name = f"w{weight:g}-{search}"
    settings = {"budget_mode": "penalty", "noise": "gaussian", "random_walk": True, "walk_weights": "distance"}
    settings |= {"memory_weight": weight, "search_id": f"{name}-{columns}"} | columns
    settings["role"] = "searched" if variant else "chosen"
    return rows_of("ciess", f"{variant}{name}-s{settings.get('seed', 0)}", budget, recall, **settings)


def beaten(weight, budget, recall, search="a", chosen=0.3, **columns):
    """A search whose mask was worse on validation than equal sizes, which are better on test, too."""
    won = mask(weight, budget, chosen, search, **columns)
    second = mask(weight, budget, recall, search, "searched-", **columns)
    flags = {id(row): EQUAL_WON for row in won}
    return [row | {"flag": flags.get(id(row))} for row in won + second]


def equal(budget, recall, seed=0, **columns):
    return rows_of("equal", f"s{seed}", budget, recall, seed=seed, **columns)


def table(*parts):
    return pa.Table.from_pylist([row for part in parts for row in part], schema=RESULTS)


def only(figures):
    assert list(figures) == ["memory-weight"]
    return figures["memory-weight"]


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def of_budget(axes, number):
    """Lines in the look of a budget, counted by sparsity."""
    return [line for line in axes.lines if to_hex(line.get_color()) == BUDGET_STYLES[number].color.lower()]


def line_of(axes, number):
    """(x, y) of the line of a budget."""
    (line,) = (line for line in of_budget(axes, number) if line.get_linestyle() == "-" and line.get_marker() == "None")
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def markers(axes, number):
    """(x, y, shape, fill) of each marker of a budget."""
    found = []
    for line in of_budget(axes, number):
        if line.get_marker() not in ("None", "_", "|", 2, 3):
            white = line.get_markerfacecolor() == "white"
            fill = "half" if line.get_fillstyle() == "left" else "hollow" if white else "filled"
            assert fill != "half" or (line.get_markerfacecoloralt(), white) == ("white", False)
            found += [(x, y, line.get_marker(), fill) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]
    return found


def dashed(axes, number):
    """Height of each dashed line of a budget; it must cross the whole panel."""
    lines = [line for line in of_budget(axes, number) if line.get_linestyle() == "--"]
    assert all(list(line.get_xdata()) == [0, 1] for line in lines)
    assert all(line.get_transform() == axes.get_yaxis_transform(which="grid") for line in lines)
    return [line.get_ydata()[0] for line in lines]


def bars(axes):
    """(x, low, high) of each error bar."""
    found = []
    for container in axes.containers:
        for segment in container.lines[2][0].get_segments():
            found.append((segment[0, 0], *segment[:, 1]))
    return found


def bands(axes):
    """(low, high) of each horizontal band."""
    return [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in axes.patches if type(patch) is Rectangle]


SWEEP = (
    mask(0.4, 0.9, 0.22) + mask(0.2, 0.9, 0.21) + mask(0.8, 0.9, 0.2) + mask(0.8, 0.8, 0.24) + mask(0.2, 0.8, 0.23),
    equal(0.9, 0.215),
    equal(0.8, 0.225),
)


def test_a_line_a_budget_against_the_memory_weight_in_two_panels():
    figure = only(draw_sweep(table(*SWEEP)))
    assert [axes.get_ylabel() for axes in figure.axes] == ["test Recall@20", "test NDCG@20"]
    for axes, factor in zip(figure.axes, (1, NDCG), strict=True):
        assert axes.get_xlabel() == "memory weight (Eq. 10)"
        for number, points in enumerate(([(0.2, 0.23), (0.8, 0.24)], [(0.2, 0.21), (0.4, 0.22), (0.8, 0.2)])):
            expected = [(weight, pytest.approx(recall * factor)) for weight, recall in points]
            assert line_of(axes, number) == expected
            shape = BUDGET_STYLES[number].marker
            assert markers(axes, number) == [(*point, shape, "filled") for point in expected]
        assert bars(axes) == []
    assert legend_texts(figure) == ["80 %", "90 %", "equal sizes"]
    assert figure.legends[0].get_title().get_text() == "sparsity"
    assert figure.get_suptitle() == "ml-1m, lightgcn (noise: gaussian, random walk: distance)"


def test_equal_sizes_cross_the_panel_in_the_colour_of_their_budget():
    figure = only(draw_sweep(table(*SWEEP, equal(0.95, 0.1), equal(0.9, 0.1, backbone="ncf"))))
    for axes, factor in zip(figure.axes, (1, NDCG), strict=True):
        assert dashed(axes, 0) == [pytest.approx(0.225 * factor)]
        assert dashed(axes, 1) == [pytest.approx(0.215 * factor)]
        assert len([line for line in axes.lines if line.get_linestyle() == "--"]) == 2
    assert legend_texts(only(draw_sweep(table(SWEEP[0])))) == ["80 %", "90 %"]


def test_the_searched_mask_is_drawn_where_equal_sizes_won():
    figure = only(draw_sweep(table(beaten(0.4, 0.9, 0.19), mask(0.2, 0.9, 0.21))))
    for axes, factor in zip(figure.axes, (1, NDCG), strict=True):
        filled, hollow = sorted(markers(axes, 0))
        assert filled == (0.2, pytest.approx(0.21 * factor), "o", "filled")
        assert hollow == (0.4, pytest.approx(0.19 * factor), "o", "hollow")
        assert line_of(axes, 0) == [filled[:2], hollow[:2]]
    assert legend_texts(figure) == ["90 %", "hollow: equal sizes were\nbetter on validation"]


def test_equal_sizes_alone_are_no_searched_mask():
    rows = [row | {"flag": f"projected, {EQUAL_WON}"} for row in mask(0.4, 0.9, 0.3)]
    figure = only(draw_sweep(table(rows, mask(0.2, 0.9, 0.21), equal(0.9, 0.2))))
    assert markers(figure.axes[0], 0) == [(0.2, 0.21, "o", "filled")]
    figure = only(draw_sweep(table(rows, equal(0.9, 0.2))))
    assert legend_texts(figure) == ["90 %: no mask"]
    assert not figure.axes[0].lines
    assert png(figure).startswith(b"\x89PNG")


def test_searches_and_seeds_are_averaged_with_bars_of_one_deviation():
    parts = [mask(0.4, 0.9, 0.2, "a"), mask(0.4, 0.9, 0.22, "b"), mask(0.4, 0.9, 0.24, "b", seed=1)]
    parts += [mask(0.2, 0.9, 0.21), equal(0.9, 0.2), equal(0.9, 0.23, seed=1)]
    figure = only(draw_sweep(table(*parts)))
    for axes, factor in zip(figure.axes, (1, NDCG), strict=True):
        means = [(0.2, pytest.approx(0.21 * factor)), (0.4, pytest.approx(0.22 * factor))]
        assert line_of(axes, 0) == means
        assert [marker[:2] for marker in markers(axes, 0)] == means
        assert bars(axes) == [pytest.approx((0.4, 0.2 * factor, 0.24 * factor))]
        assert dashed(axes, 0) == [pytest.approx(0.215 * factor)]
        sd = 0.015 * 2**0.5 * factor
        assert bands(axes) == [pytest.approx((0.215 * factor - sd, 0.215 * factor + sd))]


def test_a_marker_is_half_filled_where_seeds_disagree_on_equal_sizes():
    both = [beaten(0.4, 0.9, 0.2, "a"), mask(0.4, 0.9, 0.22, "b"), beaten(0.2, 0.9, 0.2), beaten(0.2, 0.9, 0.18, "b")]
    figure = only(draw_sweep(table(*both)))
    assert [marker[3] for marker in markers(figure.axes[0], 0)] == ["hollow", "half"]
    assert line_of(figure.axes[0], 0) == [(0.2, pytest.approx(0.19)), (0.4, pytest.approx(0.21))]
    wording = ["hollow: equal sizes were\nbetter on validation", "half: in some of the seeds"]
    assert legend_texts(figure)[1:] == wording
    assert legend_texts(only(draw_sweep(table(*both[:2]))))[1:] == wording


def test_budgets_without_a_mask_are_named():
    figure = only(draw_sweep(table(*SWEEP, equal(0.5, 0.3), equal(0.95, 0.1)), (0.95, 0.5, 0.9)))
    assert legend_texts(figure) == ["50 %: no mask", "80 %", "90 %", "95 %: no mask", "equal sizes"]
    axes = figure.axes[0]
    assert (of_budget(axes, 0), of_budget(axes, 3)) == ([], [])
    assert line_of(axes, 1) == [(0.2, 0.23), (0.8, 0.24)]
    handles = figure.legends[0].legend_handles
    assert [to_hex(handle.get_color()) for handle in handles[1:3]] == [s.color.lower() for s in BUDGET_STYLES[1:3]]
    assert handles[0].get_color() == handles[3].get_color() == "none"


def test_other_modes_and_methods_are_not_drawn():
    target = mask(0.4, 0.9, 0.3, budget_mode="target")
    others = rows_of("mixed", "s0", 0.9, 0.3), rows_of("pep", "s0", 0.9, 0.3, budget_mode="penalty", memory_weight=1.0)
    assert draw_sweep(table(target, *others, *SWEEP[1:]), (0.9,)) == {}
    assert draw_sweep(table(), (0.9,)) == {}
    figure = only(draw_sweep(table(target, *others, mask(0.4, 0.9, 0.2), mask(0.4, 0.8, 0.3, budget_mode="target"))))
    assert markers(figure.axes[0], 0) == [(0.4, 0.2, "o", "filled")]
    assert legend_texts(figure) == ["90 %"]


def test_one_memory_weight_is_a_point_with_a_tick():
    figure = only(draw_sweep(table(mask(0.4, 0.9, 0.2))))
    png(figure)
    for axes in figure.axes:
        assert [marker[0] for marker in markers(axes, 0)] == [0.4]
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0.4"]
        assert axes.get_xlim()[0] < 0.4 < axes.get_xlim()[1]
    assert png(only(draw_sweep(table(mask(0.0, 0.9, 0.2))))).startswith(b"\x89PNG")


def test_ticks_are_memory_weights_as_far_as_there_is_room():
    def ticks(*weights):
        figure = only(draw_sweep(table(*(mask(weight, 0.9, 0.2) for weight in weights))))
        png(figure)
        return [text.get_text() for text in figure.axes[1].get_xticklabels()]

    assert ticks(0.2, 0.4, 0.6, 0.8, 1.0, 1.2) == ["0.2", "0.4", "0.6", "0.8", "1", "1.2"]
    assert ticks(0.01, 0.02, 0.04, 0.4, 0.8) == ["0.01", "0.4", "0.8"]


NO_WALK = {"random_walk": False, "walk_weights": None}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ([{"backbone": "ncf", **NO_WALK}, {"backbone": "LightGCN"}], ["lightgcn-walk", "ncf-nowalk"]),
        ([{"backbone": "ncf"}, {"backbone": "ngcf"}], ["ncf", "ngcf"]),
        ([NO_WALK, {}], ["nowalk", "walk"]),
        ([NO_WALK, {}, {"walk_weights": "inverse"}], ["nowalk", "walk-distance", "walk-inverse"]),
        ([{"noise": "none"}, {"noise": "ou"}], ["nonoise", "ou"]),
        ([{"dataset": "../A b"}, {"dataset": "s3://x"}], ["a-b", "s3-x"]),
        ([{"dataset": "a/b"}, {"dataset": "a b"}, {"dataset": "a.b"}], ["a-b", "a-b-2", "a-b-2-2"]),
    ],
)
def test_a_figure_for_each_data_set_backbone_noise_and_walk(settings, names):
    found = draw_sweep(table(*(mask(0.4, 0.9, 0.2 + number / 100, **s) for number, s in enumerate(settings))))
    assert list(found) == [f"memory-weight-{name}" for name in names]
    recalls = [marker[1] for figure in found.values() for marker in markers(figure.axes[0], 0)]
    assert sorted(recalls) == pytest.approx([0.2 + number / 100 for number in range(len(settings))])
    assert len({figure.get_suptitle() for figure in found.values()}) == len(settings)


def test_a_budget_looks_the_same_in_every_figure_and_has_equal_sizes_of_its_backbone():
    parts = [mask(0.4, 0.8, 0.2), mask(0.4, 0.9, 0.19), mask(0.4, 0.9, 0.1, backbone="ncf")]
    parts += [equal(0.9, 0.18), equal(0.9, 0.09, backbone="ncf")]
    found = draw_sweep(table(*parts))
    for name, recall, texts in (("lightgcn", 0.18, ["80 %", "90 %"]), ("ncf", 0.09, ["90 %"])):
        figure = found[f"memory-weight-{name}"]
        assert dashed(figure.axes[0], 1) == [recall]
        assert legend_texts(figure) == [*texts, "equal sizes"]
    assert [marker[:3] for marker in markers(figure.axes[0], 1)] == [(0.4, 0.1, BUDGET_STYLES[1].marker)]


def test_budgets_look_neither_like_methods_nor_like_each_other():
    colors = [style.color for style in BUDGET_STYLES]
    assert len({style.marker for style in BUDGET_STYLES}) == len(set(colors)) == len(BUDGET_STYLES)
    assert not {style.color for style in (*STYLES.values(), *SIDE_STYLES.values())} & set(colors)


def test_tables_that_cannot_be_drawn():
    without = [row for row in mask(0.4, 0.9, 0.2) if (row["split"], row["metric"]) != ("test", "NDCG")]
    with pytest.raises(RunDirectoryError) as caught:
        draw_sweep(table(without))
    assert str(caught.value) == (
        "results.parquet holds 0 values of test NDCG@20 for ciess-c90-w0.4-a-s0; one value a search, budget and seed "
        "was expected. Keep the rows of one sweep, or start it anew in another folder."
    )
    twice = mask(0.4, 0.9, 0.2, search_id="x"), mask(0.4, 0.9, 0.2, "b", search_id="x")
    with pytest.raises(
        RunDirectoryError, match=r"2 values of test Recall@20 for ciess-c90-w0.4-a-s0, ciess-c90-w0.4-b"
    ):
        draw_sweep(table(*twice))
    rule = rows_of("equal", "round-s0", 0.9, 0.2)
    with pytest.raises(RunDirectoryError, match=r"2 values of test Recall@20 for equal-c90-round-s0, equal-c90-s0;"):
        draw_sweep(table(*SWEEP, rule))


@pytest.mark.parametrize("name", ["cost $5", r"$\nosuchcommand$", "<b>a & b</b>", "_hidden"])
def test_hostile_names_are_drawn_as_they_are(name):
    assert png(only(draw_sweep(table(mask(0.4, 0.9, 0.2, dataset=name))))).startswith(b"\x89PNG")


def sweep(weights, budgets, seeds, **columns):
    """Searches of which every third lost to equal sizes."""
    own = {"dataset": columns.get("dataset", "ml-1m")}
    parts = [equal(budget, 1 - budget + seed / 500, seed, **own) for budget in budgets for seed in range(seeds)]
    for number, weight in enumerate(weights):
        for budget in budgets:
            for seed in range(seeds):
                make = mask if (number + seed) % 3 else beaten
                parts.append(
                    make(weight, budget, 1.02 - budget - (weight - 0.4) ** 2 / 30 + seed / 300, seed, **columns)
                )
    return table(*parts)


def drawn_texts(figure):
    """Everything that can be read, ticks outside of their axis left out."""
    outside = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for low, high in [sorted(axis.get_view_interval())]
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not low <= tick.get_loc() <= high
    }
    found = [text for text in figure.findobj(Text) if id(text) not in outside]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize(
    "results",
    [
        sweep((0.2, 0.4, 0.6, 0.8, 1.0, 1.2), (0.8, 0.9, 0.95), 2),
        sweep(
            (0.2, 0.4), (0.8, 0.9), 1, dataset="amazon-books-2018-five-core", walk_weights="inverse", noise="uniform"
        ),
        sweep((0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8), (0.5, 0.8, 0.9, 0.95), 3),
        sweep((0.4,), (0.9,), 1),
    ],
)
def test_nothing_lies_over_anything_else(results):
    figure = only(draw_sweep(results, (0.8, 0.9, 0.95)))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in drawn_texts(figure)]
    assert len(boxes) > 10
    for i, (text, box) in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        assert [other for other, bounds in boxes[i + 1 :] if box.overlaps(bounds)] == [], text
    panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
    panels.append(figure.legends[0].get_window_extent(renderer))
    for i, box in enumerate(panels):
        assert not any(box.overlaps(other) for other in panels[i + 1 :])


def test_drawing_needs_neither_torch_nor_ray_nor_pyplot():
    heavy = "{'torch', 'ray', 'matplotlib.pyplot'}"
    code = f"import sys, ciess.reporting.figures.sweep as _; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
