"""`ciess retrain` as a user meets it: a run directory of a search becomes tested tables, or a clear refusal."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import BudgetError, RunDirectoryError
from ciess.runs.directory import read_visited
from ciess.runs.retrain import retrain
from ciess.runs.search import open_reference
from ciess.search.recorder import search_fingerprint
from ciess.search.reference import environment_of
from ciess.search.search import Search
from ciess.storage.columns import EQUAL_WON
from ciess.storage.storage import Storage
from ciess.tables.table import load

QUICK = [
    *("--max-size", "16", "--threads", "1", "--device", "cpu", "--agent.hidden", "16"),
    *("--training.learning-rate", "0.05", "--training.learning-rate-decay", "1", "--training.decay", "1e-4"),
    *("--training.batch-size", "500", "--training.max-epochs", "6", "--training.evaluate-every", "2"),
]

Call = Callable[..., Any]


class TestText:
    def test_a_budget_that_no_mask_keeps_is_said_and_the_others_are_served(self, retrained: tuple[Path, str]) -> None:
        lines = retrained[1].splitlines()
        assert lines[0].startswith(
            "No mask of this search keeps a sparsity of 0.93: the sparsest one visited has 0.9125"
        )
        assert lines[0].endswith("or project the best mask to the budget with --project.")
        tables = Storage(retrained[0]).child("tables").names()
        assert not [name for name in tables if "c93" in name]

    def test_one_table_of_all_methods(self, retrained: tuple[Path, str], words: Call) -> None:
        lines = retrained[1].splitlines()
        start = lines.index("ratings, lightgcn")
        head, *rows = [words(line) for line in lines[start + 1 : start + 10]]
        assert head[:2] == ["method", "target"]
        assert [(row[0], row[1]) for row in rows] == [
            ("full", "-"),
            ("equal", "80 %"),
            ("mixed", "80 %"),
            ("ciess", "80 %"),
            ("ciess searched", "80 %"),
            ("equal", "90 %"),
            ("mixed", "90 %"),
            ("ciess", "90 %"),
        ]
        assert [row[head.index("flags")] for row in rows] == ["-", "-", "-", EQUAL_WON, "-", "-", "-", "-"]
        assert {"valid quality", "R@5", "N@20", "kept"} <= set(head)

    def test_what_stood_for_choice(self, retrained: tuple[Path, str], words: Call) -> None:
        run, lines = Storage(retrained[0]), retrained[1].splitlines()
        start = next(place for place, line in enumerate(lines) if "short ratio" in line)
        recorded = run.read_table("retrained.parquet").to_pylist()
        assert len(recorded) == 8
        for row, line in zip(recorded, lines[start + 1 :], strict=False):
            short = row["short_quality_ratio"]
            assert words(line) == [
                f"{100 * row['target_sparsity']:g} %",
                "0",
                row["where"],
                f"{100 * row['sparsity']:g} %",
                "-" if short is None else f"{short:.4f}",
                f"{row['quality_ratio']:.4f}",
                f"{row['quality']:.4f}",
                str(row["epochs"]),
                *(["chosen"] if row["selected"] else []),
            ]
        page = run.read_bytes("report.html").decode()
        for row in recorded:
            assert f"<td>{row['where']}</td>" in page
            assert f"<td>{row['quality_ratio']:.4f}</td>" in page

    def test_tests_are_those_against_equal_sizes(self, retrained: tuple[Path, str]) -> None:
        """Without the table that has equal sizes itself, unless these are filled."""
        run, text = Storage(retrained[0]), retrained[1]
        pairs = [line.partition(":")[0] for line in text.splitlines() if " vs " in line]
        same_sizes = (
            load(run.child("tables", "ciess-c80-s0")).mask.kept == load(run.child("tables", "equal-c80-s0")).mask.kept
        )
        assert pairs == [
            "mixed vs equal at 80 %",
            *([] if same_sizes else ["ciess vs equal at 80 %"]),
            "ciess-searched vs equal at 80 %",
            "full vs equal at 80 %",
            "mixed vs equal at 90 %",
            "ciess vs equal at 90 %",
            "full vs equal at 90 %",
        ]
        assert f"Holm over {len(pairs)} tests" in text

    def test_files_are_named_and_nothing_is_left_behind(self, retrained: tuple[Path, str]) -> None:
        out, text = retrained
        assert f"wrote {out}/report.html" in text.splitlines()
        assert (out / "figures" / "visited.png").exists()
        assert not (out / "progress").exists()

    def test_the_search_is_named_in_the_results(
        self, retrained: tuple[Path, str], data: Interactions, search_config: SearchConfig
    ) -> None:
        rows = Storage(retrained[0]).read_table("results.parquet").to_pylist()
        found = {(row["method"], row["search_id"], row["random_walk"], row["walk_weights"]) for row in rows}
        fixed = {(method, None, None, None) for method in ("full", "equal", "mixed")}
        assert found == fixed | {("ciess", search_fingerprint(data, search_config)[:12], False, None)}
        assert {row["noise"] for row in rows if row["method"] == "ciess"} == {"gaussian"}


class TestInPython:
    @pytest.fixture
    def search(self, searched: Path, data: Interactions, search_config: SearchConfig) -> Search:
        run = Storage(searched)
        search = Search(search_config, environment_of(data, search_config, open_reference(data, search_config, run)))
        search.visited = read_visited(run, search_config)
        search.run = run
        return search

    def test_a_search_becomes_a_table(self, search: Search, data: Interactions, retrained: tuple[Path, str]) -> None:
        table = retrain(data, search, 0.9)
        np.testing.assert_array_equal(table.mask.sizes, search.candidates(0.9)[0].mask.sizes)
        user = data.user_ids[7].as_py()
        known = data.train + data.valid + data.test
        seen = {data.item_ids[int(item)].as_py() for item in known.items[known.users == 7]}
        items = table.recommend(str(user), k=5).items
        assert len(items) == 5
        assert not seen & set(items)
        name = "tables/ciess-c90-s0/weights.safetensors"
        assert search.run is not None
        assert search.run.child("tables").names() == ["ciess-c90-s0"]
        assert search.run.read_bytes(name) == Storage(retrained[0]).read_bytes(name)

    def test_another_seed_and_a_projected_mask(self, search: Search, data: Interactions) -> None:
        table = retrain(data, search, 0.93, seed=4, project=True)
        assert (table.card["seed"], table.card["target_sparsity"]) == (4, 0.93)
        assert table.mask.kept <= 224
        with pytest.raises(BudgetError, match="No mask of this search keeps a sparsity of"):
            retrain(data, search, 0.93)

    def test_a_search_without_a_run_directory(self, search: Search, data: Interactions) -> None:
        search.run = None
        with pytest.raises(RunDirectoryError) as caught:
            retrain(data, search, 0.9)
        assert str(caught.value) == (
            "This search has no run directory, but retraining needs its reference and a place for tables. Run it with "
            "ciess.run_search(data, config, out=...)."
        )

    def test_other_data(self, search: Search, planted: Planted) -> None:
        with pytest.raises(RunDirectoryError, match="was made from data with sha256"):
            retrain(planted.data, search, 0.9)


class TestCommand:
    def test_from_interactions_to_tables(
        self,
        ciess: Callable[..., tuple[int, str, str]],
        ratings: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # The figures of the search have tests of their own.
        monkeypatch.setattr("ciess.runs.search.search_figures", lambda *_: {})
        moved = tmp_path / "ratings.csv"
        shutil.copy(ratings, moved)
        run = tmp_path / "run"
        search = ("--episodes", "1", "--iterations", "2", "--sparsities", "0.1", "--short-fit.epochs", "1")
        assert ciess("search", moved, "--out", run, *QUICK, *search)[0] == 0
        retraining = ("retrain", run, "--sparsity", "0.1", "--project", "--compare", "equal")
        status, out, err = ciess(*retraining)
        assert status == 0, err
        assert out.splitlines()[0] == "ratings, lightgcn"
        assert [line.split()[0] for line in out.splitlines() if line.startswith(("equal ", "ciess "))][:2] == [
            "equal",
            "ciess",
        ]
        assert "chosen" in out
        assert "table ciess-c10-s0" in err.splitlines()
        assert ciess("recommend", run / "tables" / "ciess-c10-s0", "--user", "3")[0] == 0

        moved.rename(tmp_path / "elsewhere.csv")
        status, out, err = ciess(*retraining)
        assert (status, out) == (2, "")
        assert err == (
            f"ciess: {run} was made from {moved}, which is no longer there. The same interactions were expected: give "
            "their new place with --data.\n"
        )
        monkeypatch.setattr("ciess.runs.retrain.search_figures", lambda *_: {})
        monkeypatch.setattr("ciess.runs.retrain.write_report", lambda *_: [])
        assert ciess(*retraining, "--data", tmp_path / "elsewhere.csv")[0] == 0
        (tmp_path / "other.csv").write_text(
            "user_id,item_id\n" + "".join(f"{u},{i}\n" for u in range(9) for i in range(8))
        )
        status, out, err = ciess(*retraining, "--data", tmp_path / "other.csv")
        assert (status, out) == (2, "")
        assert err.splitlines()[-1].startswith(f"ciess: {run} was made from data with sha256 ")

    @pytest.mark.parametrize(
        ("given", "text"),
        [
            (
                ["--sparsity", "1.5"],
                "--sparsity: found 1.5; Input should be less than 1; it is a share, such as 0.9 for 90 %",
            ),
            (["--sparsity", "0.93"], "No mask of this search keeps a sparsity of 0.93: the sparsest one visited"),
            (["--candidates", "0"], "--candidates: found 0; Input should be greater than 0"),
        ],
    )
    def test_what_cannot_be_done_is_one_paragraph(
        self, ciess: Callable[..., tuple[int, str, str]], searched: Path, given: list[str], text: str
    ) -> None:
        status, out, err = ciess("retrain", searched, *given)
        assert (status, out) == (2, "")
        assert text in err
        assert [line for line in err.splitlines() if line.startswith("ciess: ")] == err.splitlines()[-1:]
        assert "Traceback" not in err

    def test_a_folder_that_is_not_there(self, ciess: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
        status, out, err = ciess("retrain", tmp_path / "no")
        assert (status, out) == (2, "")
        assert err.startswith(f"ciess: {tmp_path / 'no'} holds no search: ")
        assert err.count("\n") == 1
