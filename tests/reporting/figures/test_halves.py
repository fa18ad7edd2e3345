"""The figure of a search on halves: every fit on both, the best so far, and sizes by rule."""

import numpy as np
import pyarrow as pa

from ciess.reporting.figures.halves import halves
from ciess.storage.columns import CANDIDATES, HISTORY


def rows_of(target: float, quality: list[float], choice: list[float]) -> list[dict[str, object]]:
    names = dict.fromkeys(HISTORY.names)
    found = zip(quality, choice, strict=True)
    return [names | {"target_sparsity": target, "quality": q, "choice_quality": c} for q, c in found]


def test_a_panel_a_budget_with_what_the_search_would_take_on_either_half() -> None:
    history = pa.Table.from_pylist(
        rows_of(0.9, [0.2, 0.1, 0.3, 0.25], [0.15, 0.3, 0.12, 0.4]) + rows_of(0.5, [0.3], [0.2]), schema=HISTORY
    )
    beside = [
        dict.fromkeys(CANDIDATES.names) | {"origin": origin, "sparsity": 0.9, "choice_quality": value}
        for origin, value in (("sized", 0.11), ("equal", 0.05))
    ]
    figure = halves(history, pa.Table.from_pylist(beside, schema=CANDIDATES))
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["50 %", "90 %"]
    lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in second.get_lines()}
    assert lines["best by search, on pairs searched by"] == [0.2, 0.2, 0.3, 0.3]
    # What the best by the other half had on this one, though others had more.
    assert lines["best by search, on pairs chosen by"] == [0.15, 0.15, 0.12, 0.12]
    assert lines["sized, on pairs chosen by"] == [0.11, 0.11]
    assert not any("sized" in str(line.get_label()) for line in first.get_lines())
    assert len(figure.legends[0].get_texts()) == 4
