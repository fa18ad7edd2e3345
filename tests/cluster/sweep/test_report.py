"""The printed table of a sweep, on made-up results, and what is gathered from its tables."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ciess.cluster.sweep.config import SweepConfig
from ciess.cluster.sweep.plan import FAILED, UNMET, Absence
from ciess.cluster.sweep.report import LEGEND, collect, sweep_table
from ciess.storage.columns import EQUAL_WON, PER_USER, RESULTS, SIZED_WON
from ciess.storage.storage import Storage

Row = dict[str, Any]
Values = tuple[float, float]


def rows(
    name: str, target: float | None, values: Values, seed: int = 0, backbone: str = "lightgcn", **more: Any
) -> list[Row]:
    """A table's rows: Recall@20 and NDCG@20 on test, and others that must not show."""
    shared = {"candidate": name, "target_sparsity": target, "seed": seed, "backbone": backbone, "dataset": "d"}
    shared |= {"method": name.partition("-")[0], "search_id": None, "role": None, "sparsity": target or 0.0} | more
    shown = [("test", "Recall", 20, values[0]), ("test", "NDCG", 20, values[1])]
    hidden = [
        *(("valid", "Recall", 20, 0.9), ("valid", "NDCG", 20, 0.9), ("test", "quality", None, 0.9)),
        *(("test", "Recall", 5, 0.9), ("test", "NDCG", 10, 0.9)),
    ]
    names = ("split", "metric", "k", "value")
    return [shared | dict(zip(names, entry, strict=True)) for entry in hidden[:3] + shown + hidden[3:]]


def searched(mode: str, target: float, values: Values, seed: int = 0, beside: str = "", **more: Any) -> list[Row]:
    backbone = more.get("backbone", "lightgcn")
    variant = f"{backbone}-{mode}-gaussian-walk"
    name = f"ciess-c{100 * target:g}-{beside}{variant}-s{seed}"
    role = "searched" if beside else "chosen"
    return rows(name, target, values, seed, search_id=f"{variant}-s{seed}", role=role, **more)


def table(found: list[Row], absences: list[Absence] | None = None, **changes: Any) -> str:
    config = SweepConfig(**{"sparsities": (0.9, 0.8)} | changes)
    text = sweep_table(pa.Table.from_pylist(found, schema=RESULTS), config, absences or [])
    assert text.endswith(f"\n{LEGEND}")
    return text.removesuffix(f"\n{LEGEND}")


class TestTable:
    def test_methods_searches_and_marks(self) -> None:
        """Whole: budgets ascend, methods stand in their order, and every mark is where it belongs."""
        found = [
            *searched("w0.4", 0.8, (0.21, 0.31)),
            *searched("w0.4", 0.9, (0.17, 0.27), flag=EQUAL_WON),
            *searched("w0.4", 0.9, (0.165, 0.265), beside="searched-"),
            *searched("t0.9", 0.9, (0.18, 0.28), flag="projected"),
            *rows("mixed-c80-lightgcn-s0", 0.8, (0.12, 0.22)),
            *rows("equal-c90-lightgcn-s0", 0.9, (0.17, 0.27)),
            *rows("equal-c80-lightgcn-s0", 0.8, (0.20004, 0.29996)),
            *rows("full-lightgcn-s0", None, (0.25, 1.0)),
        ]
        absences = [
            Absence("lightgcn-t0.9-gaussian-walk-s0", 0.8, UNMET, "x"),
            Absence("lightgcn-w0.2-gaussian-walk-s0", 0.8, FAILED, "x"),
            Absence("lightgcn-w0.2-gaussian-walk-s0", 0.9, FAILED, "x"),
        ]
        assert table(found, absences) == "\n".join(
            [
                "method                             no budget     80 %         90 %",
                "full                               .2500 1.0000",
                "equal                                            .2000 .3000  .1700 .2700",
                "mixed                                            .1200 .2200",
                "ciess t0.9-gaussian-walk                         -            .1800 .2800",
                "ciess w0.2-gaussian-walk                         !            !",
                "ciess w0.4-gaussian-walk                         .2100 .3100  .1700 .2700 =",
                "ciess w0.4-gaussian-walk searched                             .1650 .2650",
                "",
            ]
        )

    def test_the_sparsity_reached_where_it_is_not_the_column_s(self) -> None:
        """Of methods whose sparsity is an outcome always; a difference below .05 points is not worth a word."""
        found = [
            *rows("esapn-lightgcn-s0", None, (0.24, 0.41), sparsity=0.7213),
            *rows("optembed-lightgcn-s0", None, (0.2, 0.3), sparsity=0.8),
            *rows("optembed-lightgcn-s1", None, (0.2, 0.3), seed=1, sparsity=0.9),
            *rows("equal-c80-lightgcn-s0", 0.8, (0.2, 0.3), sparsity=0.8047),
            *rows("pep-c80-lightgcn-s0", 0.8, (0.21, 0.31), sparsity=0.80049),
            *rows("pep-c90-lightgcn-s0", 0.9, (0.11, 0.21), sparsity=0.9, flag="forced"),
            *rows("full-lightgcn-s0", None, (0.25, 0.4)),
        ]
        assert table(found, [Absence("lightgcn-mixed-s0", 0.9, FAILED, "x")]) == "\n".join(
            [
                "method    no budget                      80 %               90 %",
                "full      .2500 .4000",
                "equal                                    .2000 .3000 @80.5",
                "mixed                                                       !",
                "pep                                      .2100 .3100        .1100 .2100 ~",
                "esapn     .2400 .4100 @72.1",
                "optembed  .2000±.0000 .3000±.0000 @85.0",
                "",
            ]
        )

    def test_what_a_catalogue_loses_and_the_interval_of_a_sample(self) -> None:
        found = []
        for name, rows_kept, covered in (("equal-c80-lightgcn-s0", 1.0, 0.314), ("sized-c80-lightgcn-s0", 0.5, 0.128)):
            own = rows(name, 0.8, (0.2, 0.3), sparsity=0.8)
            shown = [("ItemRows", None, rows_kept), ("Coverage", 20, covered), ("Interval", None, 0.00234)]
            own += [own[0] | {"split": "test", "metric": m, "k": k, "value": value} for m, k, value in shown]
            found += own
        text = sweep_table(pa.Table.from_pylist(found, schema=RESULTS), SweepConfig(sparsities=(0.8,)), [])
        assert text.splitlines()[:3] == [
            "method  no budget  80 %",
            "equal              .2000 .3000 100/31",
            "sized              .2000 .3000 50/13",
        ]
        assert text.splitlines()[-1] == "A sample of the users was ranked: test quality within ±.0023 (95 %)."

    def test_sizes_by_popularity_that_won(self) -> None:
        text = table(searched("b0.9", 0.9, (0.2, 0.3), flag=SIZED_WON))
        assert text.splitlines()[1].endswith(".2000 .3000 s")

    def test_an_outcome_that_failed(self) -> None:
        text = table([], [Absence("lightgcn-esapn-s0", None, FAILED, "x")])
        assert text.splitlines() == ["method  no budget  80 %  90 %", "esapn   !"]

    def test_means_and_spreads_over_seeds(self) -> None:
        """0.1, 0.2, 0.3: a mean of 0.2 and, by n - 1, a spread of 0.1."""
        found = [
            entry
            for seed, value in enumerate((0.1, 0.2, 0.3))
            for entry in searched("w0.4", 0.9, (value, 0.5), seed, flag=EQUAL_WON if seed == 1 else None)
        ]
        found += rows("equal-c90-lightgcn-s0", 0.9, (0.5, 0.25))
        assert table(found, sparsities=(0.9,)).splitlines() == [
            "method                    no budget  90 %",
            "equal                                .5000 .2500",
            "ciess w0.4-gaussian-walk             .2000±.1000 .5000±.0000 =",
        ]

    def test_a_seed_that_is_missing_marks_the_mean_of_the_others(self) -> None:
        found = [entry for seed in (0, 1) for entry in searched("w0.4", 0.9, (0.25, 0.5), seed)]
        absences = [Absence("lightgcn-w0.4-gaussian-walk-s2", 0.9, FAILED, "x")]
        assert table(found, absences, sparsities=(0.9,)).splitlines()[1].endswith(" .2500±.0000 .5000±.0000 !")

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_failure_is_not_hidden_by_a_budget_that_another_seed_did_not_meet(self, order: int) -> None:
        absences = [
            Absence("lightgcn-w0.4-gaussian-walk-s0", 0.9, FAILED, "x"),
            Absence("lightgcn-w0.4-gaussian-walk-s1", 0.9, UNMET, "x"),
        ]
        assert table([], absences[::order], sparsities=(0.9,)).splitlines()[1].split()[-1] == "!"

    def test_each_backbone_by_itself(self) -> None:
        found = [
            *rows("equal-c90-ncf-s0", 0.9, (0.1, 0.2), backbone="ncf"),
            *searched("w0.4", 0.9, (0.11, 0.21), backbone="ncf"),
            *rows("equal-c90-lightgcn-s0", 0.9, (0.3, 0.4)),
        ]
        absences = [Absence("lightgcn-w0.4-gaussian-walk-s0", 0.9, UNMET, "x")]
        text = table(found, absences, sparsities=(0.9,), backbones=("lightgcn", "ncf", "lightgcn"))
        blocks = [re.sub(" +", " ", block).strip().splitlines() for block in text.split("\n\n")]
        assert [block for block in blocks if block] == [
            ["method no budget 90 %", "equal .3000 .4000", "ciess w0.4-gaussian-walk -"],
            ["method no budget 90 %", "equal .1000 .2000", "ciess w0.4-gaussian-walk .1100 .2100"],
        ]


class TestCollect:
    def put(self, sweep: Storage, name: str, finished: bool = True) -> None:
        place = sweep.child("tables", name)
        place.write_table("results.parquet", pa.Table.from_pylist(rows(name, 0.9, (0.1, 0.2)), schema=RESULTS))
        user = {"candidate": name, "method": "equal", "target_sparsity": 0.9, "seed": 0, "user": 3, "quality": 0.5}
        place.write_table("per_user.parquet", pa.Table.from_pylist([user], schema=PER_USER))
        if finished:
            place.write_json("card.json", {})

    def test_finished_tables_of_this_plan_alone(self, tmp_path: Path) -> None:
        """The card is written last; a table that an earlier plan made is no longer of the sweep."""
        sweep = Storage(tmp_path)
        for name in ("equal-c90-a-s0", "equal-c90-b-s0", "equal-c90-old-s0"):
            self.put(sweep, name)
        self.put(sweep, "equal-c90-half-s0", finished=False)
        results = collect(sweep, ["equal-c90-b-s0", "equal-c90-half-s0", "equal-c90-a-s0", "equal-c90-never-s0"])
        assert results["candidate"].to_pylist() == ["equal-c90-b-s0"] * 7 + ["equal-c90-a-s0"] * 7
        assert results.equals(sweep.read_table("results.parquet"))
        assert results.schema == RESULTS
        users = sweep.read_table("per_user.parquet")
        assert users.schema == PER_USER
        assert users["candidate"].to_pylist() == ["equal-c90-b-s0", "equal-c90-a-s0"]

    def test_again_gives_the_same(self, tmp_path: Path) -> None:
        """And not the rows of before once more."""
        sweep = Storage(tmp_path)
        self.put(sweep, "equal-c90-a-s0")
        first = collect(sweep, ["equal-c90-a-s0"])
        assert collect(sweep, ["equal-c90-a-s0"]).equals(first)
        assert len(first) == 7

    def test_none_is_an_empty_table(self, tmp_path: Path) -> None:
        results = collect(Storage(tmp_path), ["equal-c90-a-s0"])
        assert (len(results), results.schema) == (0, RESULTS)
        assert Storage(tmp_path).read_table("per_user.parquet").schema == PER_USER
        assert sweep_table(results, SweepConfig(sparsities=(0.9,)), []) == f"method  no budget  90 %\n\n{LEGEND}"
