"""`ciess fit` and its run directory: what is in it, how it goes on, what is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.data import Interactions, Pairs
from ciess.data.planted import Planted
from ciess.data.planted import planted as make_planted
from ciess.errors import BudgetError, DataError, InputError, RunDirectoryError
from ciess.runs.directory import resolved
from ciess.runs.fit import fit_tables, planned
from ciess.storage.columns import PER_USER
from ciess.storage.storage import Storage

RUN = Storage("nowhere")
"""Of which nothing is read."""

Call = Callable[..., Any]


def config(**changes: Any) -> FitConfig:
    settings: dict[str, Any] = {
        "max_size": 16,
        "min_size": 1,
        "start": "fresh",
        "device": "cpu",
        "threads": 1,
        "sparsity": (0.8,),
        "training": {"learning_rate": 0.01, "batch_size": 500, "max_epochs": 2, "evaluate_every": 1},
    }
    return FitConfig(**settings | changes)


def start(data: Interactions, out: Path, settings: FitConfig | None = None, **options: Any) -> str:
    return fit_tables(data, settings or config(), DataConfig(), str(out), **options)


def refusal(error: type[InputError], data: Interactions, out: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(error) as caught:
        start(data, out, *arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(out), "OUT")


class TestPlanned:
    def test_tables_come_in_order(self, planted: Planted) -> None:
        settings = config(method=("mixed", "full", "equal"), sparsity=(0.9, 0.8), seeds=(2, 0))
        assert [table.name for table in planned(planted.data, settings, RUN)] == [
            *("mixed-c90-s2", "mixed-c80-s2", "mixed-c90-s0", "mixed-c80-s0"),
            *("full-s2", "full-s0"),
            *("equal-c90-s2", "equal-c80-s2", "equal-c90-s0", "equal-c80-s0"),
        ]

    def test_none_comes_twice(self, planted: Planted) -> None:
        settings = config(method=("full", "equal", "full"), sparsity=(0.8, 0.8), seeds=(1, 1))
        assert [table.name for table in planned(planted.data, settings, RUN)] == ["full-s1", "equal-c80-s1"]

    def test_budgets_are_exact(self, planted: Planted) -> None:
        """(1 - 0.9) * 128 * 200 rows is 2560 and not 2559, as it would be in binary fractions."""
        (table,) = planned(planted.data, config(sparsity=(0.9,), max_size=128, equal_rule="filled"), RUN)
        assert planted.data.n * 128 == 10 * table.mask.kept

    def test_a_budget_is_checked_whatever_the_method(self, planted: Planted) -> None:
        with pytest.raises(BudgetError):
            planned(planted.data, config(method=("full",), sparsity=(0.99,)), RUN)


class TestOpening:
    def test_a_run_directory(self, planted: Planted, tmp_path: Path) -> None:
        text = start(planted.data, tmp_path / "run", config(method=("full", "equal")))
        assert text.splitlines()[0] == "planted, lightgcn"
        run = Storage(tmp_path / "run")
        assert {"config.yaml", "data.json", "results.parquet", "per_user.parquet", "report.html", "tables"} <= set(
            run.names()
        )
        assert run.child("tables").names() == ["equal-c80-s0", "full-s0"]
        assert run.child("progress").names() == []
        written = run.read_yaml("config.yaml")
        assert written["config"] == resolved(config(method=("full", "equal")), DataConfig())["config"]
        assert set(written["made_with"]) == {"versions", "git_revision", "machine", "kernels"}
        described = run.read_json("data.json")
        assert described["sha256"] == planted.data.sha256
        assert described["users"] == planted.data.n_users
        assert run.read_table("per_user.parquet").schema == PER_USER
        assert f"wrote {tmp_path}/run/report.html" in text.splitlines()

    def test_an_existing_run_is_refused(
        self, planted: Planted, tmp_path: Path, trained: list[str], contents: Call
    ) -> None:
        start(planted.data, tmp_path)
        before = contents(tmp_path)
        assert refusal(RunDirectoryError, planted.data, tmp_path) == (
            "OUT already holds a run. An empty or new folder was expected. Choose another --out, go on with that run "
            "by --resume, or delete it by --overwrite."
        )
        assert contents(tmp_path) == before
        assert trained == ["equal-c80-s0"]

    def test_overwrite_starts_anew(self, planted: Planted, tmp_path: Path, trained: list[str]) -> None:
        start(planted.data, tmp_path)
        start(planted.data, tmp_path, config(seeds=(1,)), overwrite=True)
        assert trained == ["equal-c80-s0", "equal-c80-s1"]
        run = Storage(tmp_path)
        assert run.child("tables").names() == ["equal-c80-s1"]
        assert set(run.read_table("results.parquet")["seed"].to_pylist()) == {1}

    def test_overwrite_takes_a_new_and_an_empty_folder(self, planted: Planted, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for name in ("empty", "new"):
            start(planted.data, tmp_path / name, overwrite=True)
            assert (tmp_path / name / "report.html").exists()

    @pytest.mark.parametrize("options", [{}, {"overwrite": True}])
    @pytest.mark.parametrize(
        "foreign",
        [
            {"thesis.tex": "years of work"},
            {"config.yaml": "theme: dark\n", "thesis.tex": "years of work"},
            {"config.yaml": "- a list\n"},
            {"config.yaml": "broken: [yaml\n"},
            {"config.yaml": ""},
        ],
    )
    def test_a_folder_of_something_else_is_never_touched(
        self,
        planted: Planted,
        tmp_path: Path,
        foreign: dict[str, str],
        options: dict[str, bool],
        trained: list[str],
        contents: Call,
    ) -> None:
        for name, text in foreign.items():
            (tmp_path / name).write_text(text)
        before = contents(tmp_path)
        assert refusal(RunDirectoryError, planted.data, tmp_path, **options) == (
            f"OUT holds files that are not a run of ciess: {', '.join(sorted(foreign))}. An empty or new folder was "
            "expected. Choose another --out."
        )
        assert contents(tmp_path) == before
        assert not trained

    @pytest.mark.parametrize("options", [{}, {"overwrite": True}])
    def test_a_file_in_the_place_of_the_folder(
        self, planted: Planted, tmp_path: Path, options: dict[str, bool]
    ) -> None:
        (tmp_path / "file").write_text("kept")
        message = refusal(RunDirectoryError, planted.data, tmp_path / "file", **options)
        assert message.startswith("Cannot list OUT: ")
        assert (tmp_path / "file").read_text() == "kept"

    def test_a_place_that_cannot_be_reached(self, planted: Planted) -> None:
        with pytest.raises(RunDirectoryError, match="nosuch://bucket/run cannot be reached"):
            fit_tables(planted.data, config(), DataConfig(), "nosuch://bucket/run")

    def test_resume_and_overwrite_exclude_each_other(self, planted: Planted, tmp_path: Path, contents: Call) -> None:
        start(planted.data, tmp_path)
        before = contents(tmp_path)
        message = refusal(RunDirectoryError, planted.data, tmp_path, resume=True, overwrite=True)
        assert message.startswith("Found both --resume and --overwrite for OUT.")
        assert contents(tmp_path) == before

    @pytest.mark.parametrize(
        ("changes", "error", "text"),
        [
            ({"sparsity": (0.8, 0.99)}, BudgetError, "Choose a sparsity of at most 0.9375."),
            ({"device": "tpu"}, InputError, "The device is 'tpu'"),
        ],
    )
    def test_what_cannot_be_met_is_said_before_anything_is_trained_or_written(
        self,
        planted: Planted,
        tmp_path: Path,
        trained: list[str],
        changes: dict[str, Any],
        error: type[InputError],
        text: str,
        contents: Call,
    ) -> None:
        assert text in refusal(error, planted.data, tmp_path / "new", config(**changes))
        assert not (tmp_path / "new").exists()
        start(planted.data, tmp_path / "old")
        before = contents(tmp_path / "old")
        assert text in refusal(error, planted.data, tmp_path / "old", config(**changes), overwrite=True)
        assert contents(tmp_path / "old") == before
        assert trained == ["equal-c80-s0"]

    @pytest.mark.parametrize("part", ["valid", "test"])
    def test_data_without_a_part_to_choose_or_test_on(self, planted: Planted, tmp_path: Path, part: str) -> None:
        data = dataclasses.replace(planted.data, **{part: Pairs.none()})
        message = refusal(DataError, data, tmp_path / "run")
        counts = {"valid": len(data.valid), "test": len(data.test)}
        assert f"has {counts['valid']:,} validation and {counts['test']:,} test pairs" in message
        assert not (tmp_path / "run").exists()


class TestResuming:
    def test_finished_tables_are_kept(
        self, planted: Planted, tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str], contents: Call
    ) -> None:
        first = start(planted.data, tmp_path)
        before = {name: content for name, content in contents(tmp_path).items() if "report" not in name}
        assert start(planted.data, tmp_path, resume=True) == first
        assert trained == ["equal-c80-s0"]
        assert "[1/1] equal-c80-s0 is done already" in capsys.readouterr().err.splitlines()
        after = contents(tmp_path)
        for name in ("results.parquet", "per_user.parquet"):
            assert after[name] == before[name]
        assert {name: after[name] for name in before if name.startswith("tables/")} == {
            name: before[name] for name in before if name.startswith("tables/")
        }

    @pytest.mark.parametrize(
        ("changes", "added"),
        [
            ({"seeds": (0, 1)}, ["equal-c80-s1"]),
            ({"sparsity": (0.9, 0.8)}, ["equal-c90-s0"]),
            ({"method": ("equal", "full")}, ["full-s0"]),
        ],
    )
    def test_tables_can_be_added(
        self, planted: Planted, tmp_path: Path, trained: list[str], changes: dict[str, Any], added: list[str]
    ) -> None:
        start(planted.data, tmp_path / "grown")
        start(planted.data, tmp_path / "grown", config(**changes), resume=True)
        assert trained == ["equal-c80-s0", *added]
        start(planted.data, tmp_path / "at once", config(**changes))
        rows = [
            sorted(map(str, Storage(tmp_path / name).read_table("results.parquet").drop_columns("seconds").to_pylist()))
            for name in ("grown", "at once")
        ]
        assert rows[0] == rows[1]

    def test_a_finished_run_leaves_no_progress(self, planted: Planted, tmp_path: Path) -> None:
        start(planted.data, tmp_path)
        assert not (tmp_path / "progress").exists()

    def test_the_config_keeps_what_was_asked_for_before(self, planted: Planted, tmp_path: Path) -> None:
        start(planted.data, tmp_path)
        start(planted.data, tmp_path, config(seeds=(1,)), resume=True)
        written = Storage(tmp_path).read_yaml("config.yaml")["config"]
        assert (written["method"], written["sparsity"], written["seeds"]) == (["equal"], [0.8], [0, 1])

    def test_other_settings_are_named(self, planted: Planted, tmp_path: Path, trained: list[str]) -> None:
        start(planted.data, tmp_path)
        other = config(max_size=32, refit=False)
        with pytest.raises(RunDirectoryError) as caught:
            fit_tables(planted.data, other, DataConfig(split_seed=3), str(tmp_path), resume=True)
        assert str(caught.value) == (
            f"{tmp_path} was made with other settings: config.max_size was 16, now 32; config.refit was True, now "
            "False; data.split_seed was 0, now 3. The same ones were expected (only method, sparsity, seeds, "
            "pep, esapn, optembed may change). Give the old values, or choose another --out."
        )
        assert trained == ["equal-c80-s0"]

    def test_other_data_is_told_by_its_checksum(self, planted: Planted, tmp_path: Path) -> None:
        start(planted.data, tmp_path)
        other = make_planted(5, n_users=40, n_items=40, interactions_per_user=10).data
        assert refusal(RunDirectoryError, other, tmp_path, resume=True) == (
            f"OUT was made from data with sha256 {planted.data.sha256[:12]}, but the data given now has "
            f"{other.sha256[:12]}. Give the same file and reading options, or choose another --out."
        )

    @pytest.mark.parametrize("foreign", [{}, {"notes.txt": "x"}, {"config.yaml": "theme: dark\n"}])
    def test_there_must_be_a_run(
        self, planted: Planted, tmp_path: Path, foreign: dict[str, str], contents: Call
    ) -> None:
        for name, text in foreign.items():
            (tmp_path / name).write_text(text)
        assert refusal(RunDirectoryError, planted.data, tmp_path, resume=True) == (
            "OUT holds no run to resume: there is no config.yaml of one. Check --out, or leave --resume out to start "
            "one."
        )
        assert set(contents(tmp_path)) == set(foreign)
