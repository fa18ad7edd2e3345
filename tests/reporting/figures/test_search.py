import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from safetensors.numpy import save

from ciess import masks
from ciess.errors import RunDirectoryError
from ciess.masks.mask import PrefixMask
from ciess.reporting.figures.history import episodes, iterations
from ciess.reporting.figures.masks import Allocation, Retrained, allocation, visited
from ciess.reporting.figures.search import draw_search
from ciess.search.candidates import Candidate, to_table
from ciess.storage.columns import CANDIDATES, EQUAL_WON, HISTORY, RESULTS
from ciess.storage.storage import Storage

D, USERS, ITEMS = 128, 60, 40
DEGREES = np.concatenate([np.arange(10, 10 + USERS), np.arange(ITEMS) ** 2])
LEARNED = masks.project(1.0 + DEGREES, D, 0.9, DEGREES)


def history(n_episodes=30, n_iterations=10, lanes=1, targets=(None,)):
    """Sizes that fall from 64 to 4 while qualities follow."""
    rows = []
    for turn in range(n_episodes // lanes):
        for iteration in range(1, n_iterations + 1):
            for lane in range(lanes):
                episode = turn * lanes + lane + 1
                target = targets[(episode - 1) % len(targets)]
                actor = 1 + 63 * np.exp(-(episode + iteration / n_iterations) / 4)
                row = dict.fromkeys(HISTORY.names, 0.01) | {"episode": episode, "iteration": iteration, "lane": lane}
                row |= {"target_sparsity": target, "memory_weight": 0.4 * 1.1**episode}
                for side, factor in (("users", 1.0), ("items", 0.7)):
                    sizes = [max(1.0, factor * actor), factor * actor + 2, factor * actor + 3]
                    sizes.append((1 - target) * D if target else sizes[2])
                    row |= dict(zip((f"{side}_{s}size" for s in ("actor_", "noisy_", "walk_", "")), sizes, strict=True))
                    ratio = 1 - 0.5 * np.exp(-actor / 20)
                    row |= {f"{side}_quality_ratio": ratio, f"{side}_reward": ratio - 0.3 * factor}
                rows.append(row)
    return pa.Table.from_pylist(rows, schema=HISTORY)


def candidate(quality, sizes=None, episode=1, origin="search"):
    mask = LEARNED if sizes is None else PrefixMask(np.asarray(sizes, np.int16), D)
    return Candidate(episode, 1, 0, float(masks.sparsity(mask)), quality, quality, quality, origin, mask)


def candidates(*more):
    """Sparsities 80.5, 90.0 and 95.3 % beside equal sizes."""
    found = [candidate(0.1, masks.equal(USERS + ITEMS, D, 0.9).sizes, 0, "equal"), candidate(0.16, [25] * 100)]
    return [*found, candidate(0.14, episode=2), candidate(0.12, [6] * 100, episode=3), *more]


def results(*rows):
    """Rows of (method, target, quality, seed, variant, flag)."""
    content = []
    for method, target, quality, seed, variant, flag in rows:
        percent = "" if target is None else f"c{100 * target:g}"
        name = "-".join(part for part in (method, percent, variant, f"s{seed}") if part)
        common = {"method": method, "candidate": name, "target_sparsity": target, "seed": seed, "flag": flag}
        common |= {"sparsity": target + 0.001 if target else 0.0}
        content += [common | {"split": "valid", "metric": "quality", "value": quality}]
        content += [common | {"split": "test", "metric": "quality", "value": 0.9}]
        content += [common | {"split": "valid", "metric": "Recall", "k": 20, "value": 0.9}]
    return pa.Table.from_pylist(content, schema=RESULTS)


@pytest.fixture
def run(tmp_path):
    storage = Storage(tmp_path)
    storage.write_table("history.parquet", history(3, 2))
    storage.write_table("candidates.parquet", to_table(candidates(), USERS + ITEMS))
    return storage


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def titles(figure):
    return [axes.get_title("left").split("\n")[0] for axes in figure.axes]


def points(figure, label):
    lines = [line for line in figure.axes[0].lines if line.get_label() == label]
    return [point for line in lines for point in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_a_run_gives_what_its_files_allow(run):
    assert list(draw_search(run, USERS, DEGREES, (0.8, 0.9))) == [
        "search",
        "iterations",
        "halves",
        "visited",
        "allocation",
    ]
    assert list(draw_search(run, USERS)) == ["search", "iterations", "halves", "visited"]
    assert list(draw_search(run, USERS, DEGREES, ())) == ["search", "iterations", "halves", "visited"]
    run.delete("history.parquet")
    assert list(draw_search(run, USERS, DEGREES, (0.8,))) == ["visited", "allocation"]
    run.delete("candidates.parquet")
    run.write_table("results.parquet", results(("ciess", 0.9, 0.2, 0, "", None)))
    assert draw_search(run, USERS, DEGREES, (0.8,)) == {}


def test_files_without_rows_have_no_figure(run):
    run.write_table("history.parquet", HISTORY.empty_table())
    run.write_table("candidates.parquet", to_table([], USERS + ITEMS))
    assert draw_search(run, USERS, DEGREES, (0.9,)) == {}


def test_the_reference_and_the_retrained_tables_join_the_visited_masks(run):
    assert legend_texts(draw_search(run, USERS)["visited"]) == ["short fit: searched", "short fit: equal sizes"]
    run.write_json("reference/metrics.json", {"metrics": {"quality": 0.25, "Recall@20": 0.9}})
    run.write_table(
        "results.parquet",
        results(
            ("full", None, 0.24, 0, "", None),
            ("ciess", 0.8, 0.2, 0, "", None),
            ("ciess", 0.8, 0.22, 1, "", None),
            ("equal", 0.8, 0.2, 0, "", None),
            ("mixed", 0.8, 0.23, 0, "", None),
            ("ciess", 0.9, 0.18, 0, "", f"projected, {EQUAL_WON}"),
            ("ciess", 0.9, 0.17, 0, "searched", "projected"),
            ("equal", 0.9, 0.16, 0, "round", None),
        ),
    )
    figure = draw_search(run, USERS)["visited"]
    assert points(figure, "reference, fully trained") == [(0, 0.25), (1, 0.25)]
    assert points(figure, "retrained: full") == [(0, 0.24), (1, 0.24)]
    assert points(figure, "retrained: ciess") == [pytest.approx((80.1, 0.2)), pytest.approx((80.1, 0.22))]
    assert points(figure, "retrained: mixed") == [pytest.approx((80.1, 0.23))]
    assert points(figure, "retrained: equal round") == [pytest.approx((90.1, 0.16))]
    assert points(figure, "retrained: ciess searched (projected)") == [pytest.approx((90.1, 0.17))]
    taken = [*points(figure, "retrained: ciess"), *points(figure, f"retrained: ciess (projected, {EQUAL_WON})")]
    assert points(figure, "retrained: selected") == taken
    assert taken[2] == pytest.approx((90.1, 0.18))


def medians(axes):
    return list(axes.lines[0].get_ydata())


def test_allocations_are_of_the_best_masks_for_each_budget(run):
    figure = draw_search(run, USERS, DEGREES, (0.95, 0.8, 0.99))["allocation"]
    assert titles(figure)[::2] == ["best for 80 %, by its short fit", "best for 95 %, by its short fit"]
    assert titles(figure)[1::2] == [
        "sparsity 80.5 %, mean size 25.0, equal size 25",
        "sparsity 95.3 %, mean size 6.0, equal size 6",
    ]
    assert [set(medians(axes)) for axes in figure.axes] == [{25}, {25}, {6}, {6}]


def test_equal_sizes_are_no_learned_allocation(run):
    best = candidate(0.9, masks.equal(USERS + ITEMS, D, 0.9).sizes, 0, "equal")
    run.write_table("candidates.parquet", to_table([best, *candidates()], USERS + ITEMS))
    figure = draw_search(run, USERS, DEGREES, (0.9,))["allocation"]
    expected = allocation([Allocation("best for 90 %, by its short fit", LEARNED, DEGREES, USERS)])
    assert [medians(axes) for axes in figure.axes] == [medians(axes) for axes in expected.axes]
    assert titles(figure) == titles(expected)


def write_sizes(run, name, sizes):
    content = {"values": np.ones(int(np.sum(sizes)), np.float32), "sizes": np.asarray(sizes, np.int16)}
    run.write_bytes(f"tables/{name}/weights.safetensors", save(content))


def test_a_retrained_mask_comes_before_the_visited_ones(run):
    rows = [("ciess", 0.9, quality, seed, "", None) for seed, quality in enumerate((0.17, 0.19, 0.18))]
    run.write_table("results.parquet", results(*rows, ("equal", 0.9, 0.2, 0, "", None)))
    for seed, size in enumerate((12, 11, 10)):
        write_sizes(run, f"ciess-c90-s{seed}", [size] * 100)
    figure = draw_search(run, USERS, DEGREES)["allocation"]
    assert titles(figure) == ["best for 90 %, retrained", "sparsity 91.4 %, mean size 11.0, equal size 11"]
    assert set(medians(figure.axes[0])) == {11}
    run.delete("tables/ciess-c90-s1")
    assert titles(draw_search(run, USERS, DEGREES)["allocation"])[0] == "best for 90 %, by its short fit"


def test_equal_sizes_that_won_are_no_learned_allocation(run):
    rows = [("ciess", 0.9, 0.2, 0, "", EQUAL_WON), ("ciess", 0.9, 0.17, 0, "searched", None)]
    run.write_table("results.parquet", results(*rows))
    write_sizes(run, "ciess-c90-s0", [12] * 100)
    write_sizes(run, "ciess-c90-searched-s0", [11] * 100)
    assert set(medians(draw_search(run, USERS, DEGREES)["allocation"].axes[0])) == {11}
    run.write_table("results.parquet", results(rows[0]))
    assert "allocation" not in draw_search(run, USERS, DEGREES)


@pytest.mark.parametrize("content", [b"no", {"values": np.ones(3, np.float32)}, {"sizes": np.full(100, 200, np.int16)}])
def test_a_table_that_cannot_be_read(run, content):
    run.write_table("results.parquet", results(("ciess", 0.9, 0.18, 0, "", None)))
    content = content if isinstance(content, bytes) else save(content)
    run.write_bytes("tables/ciess-c90-s0/weights.safetensors", content)
    message = r"weights\.safetensors is not a table of sizes up to 128 .* `sizes` were expected.* retrain that table"
    with pytest.raises(RunDirectoryError, match=message):
        draw_search(run, USERS, DEGREES)


def test_a_table_of_other_data(run):
    run.write_table("results.parquet", results(("ciess", 0.9, 0.18, 0, "", None)))
    write_sizes(run, "ciess-c90-s0", [11] * 99)
    with pytest.raises(RunDirectoryError, match=r"has 99 rows, but 100 were expected, .* or retrain that table"):
        draw_search(run, USERS, DEGREES)


@pytest.mark.parametrize("name", ["history", "candidates"])
def test_a_parquet_file_that_cannot_be_read(run, name):
    message = (
        rf"{name}\.parquet (is not a Parquet file|lacks the columns).* columns episode, iteration, .* move it away"
    )
    wrong_type = pa.table({column: ["x"] for column in (HISTORY if name == "history" else CANDIDATES).names})
    run.write_bytes(f"{name}.parquet", b"no")
    with pytest.raises(RunDirectoryError, match=message):
        draw_search(run, USERS)
    for table in (pa.table({"episode": [1]}), wrong_type):
        run.write_table(f"{name}.parquet", table)
        with pytest.raises(RunDirectoryError, match=message):
            draw_search(run, USERS)


@pytest.mark.parametrize("content", [b"no", b"[]", b'{"metrics": {}}', b'{"metrics": {"quality": "good"}}'])
def test_a_reference_that_cannot_be_read(run, content):
    run.write_bytes("reference/metrics.json", content)
    message = r"metrics\.json does not say how good the reference is .* metrics\.quality was expected.* move it away"
    with pytest.raises(RunDirectoryError, match=message):
        draw_search(run, USERS)


def test_sizes_that_do_not_fit_together(run):
    rows = to_table(candidates(), USERS + ITEMS).to_pylist()
    for changed in ({"sizes": [1, 2]}, {"sizes": [500] * 100}, {"sizes": None}, {"sparsity": 0.5}):
        table = pa.Table.from_pylist([rows[0] | changed, *rows], schema=CANDIDATES)
        run.write_table("candidates.parquet", table)
        with pytest.raises(RunDirectoryError, match=r"do not fit together .* were expected\. Restore .* move it away"):
            draw_search(run, USERS, DEGREES)


@pytest.mark.parametrize(("n_users", "degrees"), [(USERS, DEGREES[1:]), (0, DEGREES), (100, DEGREES)])
def test_degrees_of_other_data(run, n_users, degrees):
    message = r"holds masks of 100 rows, but .* users and .* items; .* were expected\. Give the data of this run"
    with pytest.raises(RunDirectoryError, match=message):
        draw_search(run, n_users, degrees, (0.9,))


def drawn_texts(figure):
    """Everything that can be read, ticks outside of their axis left out."""
    labels = [
        (label, low <= tick.get_loc() <= high)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for low, high in [sorted(axis.get_view_interval())]
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
    ]
    ticks = {id(label) for label, _ in labels}
    found = [label for label, inside in labels if inside]
    found += [text for text in figure.findobj(Text) if id(text) not in ticks]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


RETRAINED = [Retrained(m, c, q, m == "ciess") for c in (0.8, 0.9, 0.95) for m, q in (("equal", 0.19), ("ciess", 0.2))]
SEARCHED = [candidate(0.1 + 0.001 * e, np.clip(LEARNED.sizes // (1 + e / 9), 1, D), e) for e in range(1, 31)]
FIGURES = {
    "episodes": lambda: episodes(history()),
    "episodes of two runs": lambda: episodes(history(), history(20)),
    "one episode": lambda: episodes(history(1)),
    "episodes of four lanes": lambda: episodes(history(32, lanes=4, targets=(0.8, 0.95))),
    "iterations": lambda: iterations(history()),
    "iterations of one episode": lambda: iterations(history(1)),
    "iterations of four lanes": lambda: iterations(history(32, lanes=4, targets=(0.8, 0.95))),
    "visited": lambda: visited(
        to_table(candidates(*SEARCHED), 100), [Retrained("full", 0, 0.2, False), *RETRAINED], 0.21
    ),
    "one visited": lambda: visited(to_table(SEARCHED[:1], 100), [], 0.2),
    "allocation": lambda: allocation([Allocation("best for 80 %, by its short fit", LEARNED, DEGREES, USERS)] * 2),
    "allocation to the very popular": lambda: allocation([Allocation("a", LEARNED, DEGREES**2, USERS)]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_lies_over_anything_else(name):
    figure = FIGURES[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = drawn_texts(figure)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    assert len(boxes) > 10
    for i, (text, box) in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        assert [other for other, bounds in boxes[i + 1 :] if box.overlaps(bounds)] == [], text
    panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
    panels.append(figure.legends[0].get_window_extent(renderer))
    for i, box in enumerate(panels):
        assert not any(box.overlaps(other) for other in panels[i + 1 :])


def test_drawing_needs_neither_torch_nor_pyplot():
    code = (
        "import sys, ciess.reporting.figures.search as _; "
        "sys.exit(bool({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_another_search_stands_beside_this_one(tmp_path):
    run, other = Storage(str(tmp_path / "with")), Storage(str(tmp_path / "without"))
    run.write_table("history.parquet", history(4))
    other.write_table("history.parquet", history(6))
    figure = draw_search(run, USERS, beside=other)["search"]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:4] == [f"{side}, {name.location}" for name in (run, other) for side in ("users", "items")]
    dashed = [line for line in figure.axes[1].lines if line.get_linestyle() == "--"]
    assert {len(line.get_xdata()) for line in dashed} == {6}


def test_a_search_without_history_cannot_stand_beside(tmp_path):
    run = Storage(str(tmp_path / "with"))
    run.write_table("history.parquet", history(2))
    with pytest.raises(RunDirectoryError) as caught:
        draw_search(run, USERS, beside=Storage(str(tmp_path / "nothing")))
    assert str(caught.value) == (
        f"{tmp_path / 'nothing'} holds no history of a search: history.parquet is missing or has no rows. Expected the "
        "run directory of a search that has finished an iteration. Check the path."
    )
