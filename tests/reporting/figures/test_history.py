import numpy as np
import pyarrow as pa
import pytest
from matplotlib.colors import to_hex

from ciess.reporting.figures.history import SIDE_STYLES, STAGES, episodes, iterations
from ciess.reporting.figures.style import STYLES, png
from ciess.storage.columns import HISTORY, SIDES


def row(episode, iteration, lane=0, target=None, weight=0.4, **columns):
    values = dict.fromkeys(HISTORY.names, 1.0) | {"episode": episode, "iteration": iteration, "lane": lane}
    return values | {"target_sparsity": target, "memory_weight": weight} | columns


def history(*rows):
    return pa.Table.from_pylist(list(rows), schema=HISTORY)


def two_episodes(factor=1.0):
    """Rows that are out of order, so that the last one of an episode is not its last iteration."""
    places = [(1, 2, 0.3, 40), (1, 1, 0.1, 60), (2, 2, 0.9, 8), (2, 1, 0.5, 10)]
    return history(
        *(
            row(
                episode,
                iteration,
                users_reward=reward * factor,
                items_reward=-reward * factor,
                users_size=float(size) * factor,
                items_size=size / 2 * factor,
            )
            for episode, iteration, reward, size in places
        )
    )


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def drawn(axes):
    """(colour, dashes, line width) and y of each line."""
    return [
        ((to_hex(line.get_color()), line.get_linestyle(), line.get_linewidth()), list(line.get_ydata()))
        for line in axes.lines
    ]


def test_episodes_are_means_over_iterations_beside_the_last_one():
    figure = episodes(two_episodes())
    reward, size = figure.axes
    assert (reward.get_xlabel(), reward.get_ylabel()) == ("training episode", "average reward (Eq. 10)")
    assert (size.get_xlabel(), size.get_ylabel()) == ("training episode", "average size (dimensions)")
    assert legend_texts(figure) == ["users", "items", "thin: last iteration"]
    users, items = (SIDE_STYLES[side].color.lower() for side in SIDES)
    for axes, oracle in (
        (reward, {users: ([0.3, 0.9], [0.2, 0.7]), items: ([-0.3, -0.9], [-0.2, -0.7])}),
        (size, {users: ([40, 8], [50, 9]), items: ([20, 4], [25, 4.5])}),
    ):
        assert all(list(line.get_xdata()) == [1, 2] for line in axes.lines)
        for color, (last, mean) in oracle.items():
            (thin_look, thin), (look, thick) = (line for line in drawn(axes) if line[0][0] == color)
            assert thin == pytest.approx(last)
            assert thick == pytest.approx(mean)
            assert thin_look[2] < look[2]
            assert thin_look[1] == look[1] == "-"


def test_the_second_run_is_dashed_and_named():
    figure = episodes(two_episodes(), two_episodes(2.0), ("walking", "cost $5"))
    assert legend_texts(figure) == [
        *(f"{side}, {label}" for label in ("walking", r"cost \$5") for side in SIDES),
        "thin: last iteration",
    ]
    for axes in figure.axes:
        solid = [line for line in drawn(axes) if line[0][1] == "-"]
        dashed = [line for line in drawn(axes) if line[0][1] == "--"]
        assert len(solid) == len(dashed) == 4
        for (look, first), (other_look, second) in zip(solid, dashed, strict=True):
            assert second == pytest.approx([2 * value for value in first])
            assert (look[0], look[2]) == (other_look[0], other_look[2])
    assert png(figure).startswith(b"\x89PNG")


def test_a_row_of_panels_for_each_target():
    lanes = [(1, 0, 0.8, 1.0), (2, 1, 0.95, 2.0), (3, 0, 0.8, 3.0), (4, 1, 0.95, 4.0)]
    figure = episodes(history(*(row(e, 1, lane, target, users_size=size) for e, lane, target, size in lanes)))
    assert [axes.get_title("left") for axes in figure.axes] == ["target sparsity 80 %", "", "target sparsity 95 %", ""]
    for axes, numbers, sizes in ((figure.axes[1], [1, 3], [1, 3]), (figure.axes[3], [2, 4], [2, 4])):
        assert list(axes.lines[1].get_xdata()) == numbers
        assert list(axes.lines[1].get_ydata()) == sizes
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


def test_a_run_without_a_target_beside_one_with():
    figure = episodes(history(row(1, 1, users_size=5.0)), history(row(1, 1, target=0.9, users_size=7.0)))
    assert [len(axes.lines) for axes in figure.axes] == [4, 4, 4, 4]
    assert [axes.lines[1].get_linestyle() for axes in figure.axes] == ["-", "-", "--", "--"]
    assert list(figure.axes[1].lines[1].get_ydata()) == [5]
    assert list(figure.axes[3].lines[1].get_ydata()) == [7]


def test_ticks_of_a_single_episode_are_whole():
    for figure in (episodes(history(row(1, 1))), iterations(history(row(1, 1)))):
        png(figure)
        for axes in figure.axes:
            assert all(tick == int(tick) for tick in axes.get_xticks())


def stages(side, actor, noisy, walk, fitted):
    return dict(zip((f"{side}_{column}" for column, _ in STAGES.values()), (actor, noisy, walk, fitted), strict=True))


def test_iterations_show_every_stage_of_both_sides():
    first = stages("users", 60.0, 61.0, 62.0, 63.0) | stages("items", 6.0, 7.0, 8.0, 9.0)
    second = stages("users", 1.5, 4.0, 5.0, 12.0) | stages("items", 1.0, 2.0, 3.0, 11.0)
    agent = {"users_critic_loss": 0.5, "items_critic_loss": None, "weight": 2.0}
    figure = iterations(
        history(
            row(1, 1, **first, **agent, users_quality_ratio=0.9, items_quality_ratio=0.8),
            row(1, 2, **second, **agent | {"items_critic_loss": 0.25, "weight": 1.0}, users_quality_ratio=0.7),
        )
    )
    assert legend_texts(figure) == ["actor", "after noise", "after walk", "fitted", "users", "items", "memory weight"]
    for axes, side in zip(figure.axes[:2], SIDES, strict=True):
        assert axes.get_ylabel() == f"mean size of {side} (dimensions)"
        assert axes.get_yscale() == "log"
        expected = [[first[f"{side}_{column}"], second[f"{side}_{column}"]] for column, _ in STAGES.values()]
        assert [list(line.get_ydata()) for line in axes.lines] == expected
        assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2]] * 4
    ratio, agent_panel = figure.axes[2:]
    assert [list(line.get_ydata()) for line in ratio.lines] == [[0.9, 0.7], [0.8, 1.0]]
    users, items, weight = (list(line.get_ydata()) for line in agent_panel.lines)
    assert (users, weight) == ([0.5, 0.5], [2, 1])
    assert np.isnan(items[0])
    assert items[1] == 0.25
    assert agent_panel.get_yscale() == "log"
    assert agent_panel.lines[1].get_markevery() == [1]
    assert ratio.lines[0].get_markevery() == []
    assert png(figure).startswith(b"\x89PNG")


def test_size_axes_reach_from_one_power_of_two_to_another():
    figure = iterations(history(row(1, 1, **stages("users", 1.0, 3.0, 5.0, 70.0))))
    png(figure)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "1",
        "2",
        "4",
        "8",
        "16",
        "32",
        "64",
        "128",
    ]
    equal = iterations(history(row(1, 1, **stages("users", 12.0, 12.0, 12.0, 12.0))))
    assert list(equal.axes[0].get_yticks()) == [8, 16]


def test_lanes_are_averaged_by_round_and_target():
    rows = [
        row(
            1 + 4 * turn + lane,
            iteration,
            lane,
            (0.8, 0.95)[lane % 2],
            users_size=float(100 * turn + 10 * iteration + lane),
        )
        for turn in range(2)
        for iteration in (1, 2)
        for lane in range(4)
    ]
    figure = iterations(history(*rows))
    assert [axes.get_title("left") for axes in figure.axes[::4]] == ["target sparsity 80 %", "target sparsity 95 %"]
    for panels, offset in ((figure.axes[:4], 1), (figure.axes[4:], 2)):
        fitted = panels[0].lines[3]
        assert list(fitted.get_xdata()) == [4, 8, 12, 16]
        assert list(fitted.get_ydata()) == [10 + offset, 20 + offset, 110 + offset, 120 + offset]
        assert list(panels[0].get_xticks(minor=True)) == [2, 10]
    assert figure.axes[-1].get_xlabel() == "short fit (rounds of 4 lanes)"


def test_targets_that_episodes_serve_in_turn_leave_gaps():
    rows = [row(e, i, 0, (0.8, 0.9)[(e - 1) % 2], users_size=float(e)) for e in (1, 2, 3) for i in (1, 2)]
    figure = iterations(history(*rows))
    assert list(figure.axes[0].lines[3].get_ydata()) == pytest.approx([1, 1, np.nan, np.nan, 3, 3], nan_ok=True)
    assert list(figure.axes[4].lines[3].get_ydata()) == pytest.approx([np.nan] * 2 + [2, 2] + [np.nan] * 2, nan_ok=True)


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("loss", [None, float("nan"), float("inf"), 0.0])
def test_losses_without_a_logarithm(weight, loss):
    figure = iterations(history(row(1, 1, weight=weight, users_critic_loss=loss, items_critic_loss=loss)))
    assert png(figure).startswith(b"\x89PNG")
    assert figure.axes[3].get_yscale() == ("log" if weight else "linear")
    if weight:
        # Nothing is drawn for 0, not a line that falls out of the panel.
        assert not np.isfinite(figure.axes[3].yaxis.get_transform().transform([0.0])).any()


def test_sides_do_not_look_like_methods():
    assert not {style.color for style in SIDE_STYLES.values()} & {style.color for style in STYLES.values()}
    assert len({style.marker for style in SIDE_STYLES.values()}) == 2
