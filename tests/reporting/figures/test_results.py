import pyarrow as pa
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ciess.errors import RunDirectoryError
from ciess.reporting.figures.results import draw, frontier, learning, read_histories
from ciess.reporting.figures.style import STYLES, png
from ciess.reporting.summaries import summarise
from ciess.storage.columns import RESULTS
from ciess.storage.storage import Storage

TARGETS = (0.8, 0.9, 0.95)
RECALL = {"full": {None: 0.25}, "equal": dict(zip(TARGETS, (0.226, 0.21, 0.175), strict=True))}
RECALL["mixed"] = {target: value - 0.01 for target, value in RECALL["equal"].items()}


def rows(dataset="ml-1m", backbone="lightgcn", seeds=(0, 1, 2), methods=("full", "equal", "mixed")):
    return [
        {
            "method": method,
            "candidate": "-".join(p for p in (method, "" if t is None else f"c{100 * t:g}", f"s{seed}") if p),
            "backbone": backbone,
            "dataset": dataset,
            "target_sparsity": t,
            "sparsity": t + 0.001 if t else 0.0,
            "kept_parameters": 1000,
            "split": "test",
            "metric": metric,
            "k": 20,
            "value": value * factor + 0.001 * (seed - seeds[len(seeds) // 2]),
            "seed": seed,
            "epochs": 10,
        }
        for method in methods
        for t, value in RECALL[method].items()
        for seed in seeds
        for metric, factor in (("Recall", 1), ("NDCG", 2))
    ]


def table(*parts):
    return pa.Table.from_pylist([row for part in parts for row in part], schema=RESULTS)


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_frontier_shows_every_method_and_the_paper():
    figure = frontier(summarise(table(rows())))
    assert figure.get_suptitle() == "ml-1m, lightgcn"
    assert legend_texts(figure) == ["full", "equal", "mixed", "equal, paper", "mixed, paper"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["test Recall@20", "test NDCG@20"]
    for axes, factor in zip(figure.axes, (1, 2), strict=True):
        assert axes.get_xlabel() == "sparsity (% of parameters removed)"
        full = axes.lines[0]
        equal, mixed = (line for line in axes.lines if line.get_linestyle() == "-")
        assert full.get_linestyle() == "--"
        assert list(full.get_ydata()) == pytest.approx([0.25 * factor] * 2)
        for line, method in ((equal, "equal"), (mixed, "mixed")):
            assert list(line.get_xdata()) == pytest.approx([80.1, 90.1, 95.1])
            assert list(line.get_ydata()) == pytest.approx([v * factor for v in RECALL[method].values()])
            assert to_hex(line.get_color()) == STYLES[method].color.lower()


def bars(axes):
    return [container for container in axes.containers if container.has_yerr]


def test_error_bars_are_one_deviation_each_way():
    axes = frontier(summarise(table(rows()))).axes[0]
    assert len(bars(axes)) == 2
    (segments,) = (collection.get_segments() for collection in bars(axes)[0].lines[2])
    for segment, value in zip(segments, RECALL["equal"].values(), strict=True):
        assert segment[:, 1] == pytest.approx([value - 0.001, value + 0.001])
    assert not bars(frontier(summarise(table(rows(seeds=(0,))))).axes[0])


def test_paper_points_are_hollow_and_at_the_printed_place():
    axes = frontier(summarise(table(rows()))).axes[0]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert len(hollow) == 2
    assert list(hollow[0].get_xdata()) == pytest.approx([80, 90, 95])
    assert list(hollow[0].get_ydata()) == [0.2248, 0.2105, 0.1752]
    assert hollow[0].get_linestyle() == "None"
    assert to_hex(hollow[0].get_markeredgecolor()) == STYLES["equal"].color.lower()
    assert legend_texts(frontier(summarise(table(rows("planted"))))) == ["full", "equal", "mixed"]


def test_only_the_full_table():
    figure = frontier(summarise(table(rows(methods=("full",)))))
    assert figure.axes[0].get_xlim() == (0, 100)
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["cost $5", r"$\nosuchcommand{", "<b>a & b</b>", "_hidden"])
def test_hostile_names_are_drawn_as_they_are(name):
    assert png(frontier(summarise(table(rows(name))))).startswith(b"\x89PNG")
    assert png(learning({name: [(1, 0.1)]})).startswith(b"\x89PNG")


def test_learning_curves():
    histories = {
        "equal-c90-s0": [(5, 0.10), (10, 0.20), (15, 0.15)],
        "equal-c90-s1": [(5, 0.11), (10, 0.19)],
        "equal-c95-s0": [(5, 0.05), (10, 0.06)],
        "full-s0": [(5, 0.2), (10, 0.3)],
    }
    figure = learning(histories)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "validation quality (Eq. 8)")
    assert legend_texts(figure) == ["full", "equal-c90", "equal-c95"]
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 3, 2, 2]
    full, ninety, ninety_again, ninety_five = axes.lines
    assert list(zip(ninety.get_xdata(), ninety.get_ydata(), strict=True)) == histories["equal-c90-s0"]
    assert ninety.get_markevery() == [1]
    assert {to_hex(line.get_color()) for line in (ninety, ninety_again, ninety_five)} == {STYLES["equal"].color.lower()}
    assert to_hex(full.get_color()) == STYLES["full"].color
    assert ninety.get_linestyle() == ninety_again.get_linestyle() != ninety_five.get_linestyle()


def test_nothing_lies_over_anything_else():
    histories = {f"{m}-c{c}-s0": [(1, 0.1), (2, 0.2)] for m in ("equal", "mixed") for c in (80, 90, 95)}
    for figure in (frontier(summarise(table(rows()))), learning(histories)):
        png(figure)
        renderer = figure.canvas.get_renderer()
        boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
        boxes.append(figure.legends[0].get_window_extent(renderer))
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def history(quality):
    return pa.table({"epoch": list(range(1, len(quality) + 1)), "loss": [0.5] * len(quality), "quality": quality})


def test_histories_hold_the_evaluated_epochs(tmp_path):
    storage = Storage(tmp_path)
    storage.write_table("tables/equal-c90-s0/history.parquet", history([None, 0.1, None, 0.2]))
    storage.write_table("tables/full-s0/history.parquet", history(pa.array([None, None], pa.float64())))
    storage.write_json("tables/mixed-c90-s0/card.json", {})
    assert read_histories(storage) == {"equal-c90-s0": [(2, 0.1), (4, 0.2)]}
    storage.write_bytes("tables/full-s0/history.parquet", b"no")
    with pytest.raises(
        RunDirectoryError, match=r"history\.parquet is not a Parquet file .* columns epoch, quality was expected"
    ):
        read_histories(storage)
    storage.write_table("tables/full-s0/history.parquet", pa.table({"epoch": [1]}))
    with pytest.raises(RunDirectoryError, match="lacks the columns quality; the columns epoch, quality were expected"):
        read_histories(storage)


def test_figures_are_of_what_the_run_holds(tmp_path):
    storage = Storage(tmp_path)
    storage.write_table("results.parquet", table(rows()))
    assert list(draw(storage)) == ["frontier"]
    storage.write_table("tables/full-s0/history.parquet", history([0.1, 0.2]))
    assert list(draw(storage)) == ["frontier", "learning"]


def test_a_frontier_for_each_data_set_and_backbone(tmp_path):
    storage = Storage(tmp_path)
    storage.write_table("results.parquet", table(rows("../a"), rows("../b"), rows("../b", "ncf")))
    figures = draw(storage)
    assert list(figures) == ["frontier-1-a-lightgcn", "frontier-2-b-lightgcn", "frontier-3-b-ncf"]
    assert all(isinstance(figure, Figure) for figure in figures.values())


def test_missing_results(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"holds no results\.parquet"):
        draw(Storage(tmp_path))
