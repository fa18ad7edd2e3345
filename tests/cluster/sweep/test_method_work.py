"""A learned method as a trial, without Ray."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ciess import masks
from ciess.cluster.sweep.work import MethodWork
from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.methods import METHODS
from ciess.methods.journal import Journal
from ciess.methods.method import Method
from ciess.storage.storage import Storage
from ciess.tables.spec import TableSpec

BUDGETS = [Fraction(1, 2), Fraction(3, 4)]


class Here:
    """Stands for the material that a trial gets: data that this process has."""

    def __init__(self, data: Interactions) -> None:
        self.load = lambda: data


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    """`pep` notes a row every 8 seconds, five of them."""

    def pep(
        data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, learning: Journal | None = None
    ) -> list[TableSpec]:
        assert learning is not None
        for step in range(1, 6):
            learning.note(stage="search", step=step, sparsity=step / 10, flag=None)
            clock[0] += 8
        return [TableSpec("pep", masks.equal(data.n, 16, c), seed, c) for c in budgets]

    monkeypatch.setitem(METHODS, "pep", Method(pep, learned=True))


def test_every_row_is_reported_and_a_line_now_and_then(planted: Planted, tmp_path: Path) -> None:
    work = MethodWork(Storage(tmp_path), "pep", FitConfig(max_size=16), 2, BUDGETS)
    assert work.title == "lightgcn-pep-s2"
    assert not work.finished
    reports: list[dict[str, Any]] = []
    work.run(Here(planted.data), reports.append)  # type: ignore[arg-type]
    assert [report["step"] for report in reports] == [1, 2, 3, 4, 5]
    assert all(report.keys() == {"step", "sparsity", "line"} for report in reports)
    assert [report["line"] for report in reports] == [
        "search step 1, sparsity 0.1",
        *("", ""),
        "search step 4, sparsity 0.4",
        "",
    ]
    assert work.finished
    assert [table.name for table in work.masks(planted.data).tables()] == ["pep-c50-s2", "pep-c75-s2"]


def test_it_is_not_finished_where_a_budget_is_missing(planted: Planted, tmp_path: Path) -> None:
    MethodWork(Storage(tmp_path), "pep", FitConfig(max_size=16), 0, BUDGETS[:1]).run(
        Here(planted.data),  # type: ignore[arg-type]
        lambda _: None,
    )
    assert not MethodWork(Storage(tmp_path), "pep", FitConfig(max_size=16), 0, BUDGETS).finished
