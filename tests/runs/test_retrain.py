"""`ciess retrain` as a user meets it: a run directory of a search becomes tested tables, or a clear refusal."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

from ciess import masks
from ciess.config.data import DataConfig
from ciess.config.recommender import RecommenderConfig
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions, Pairs, read
from ciess.data.planted import Planted
from ciess.errors import BudgetError, DataError, InputError, RunDirectoryError
from ciess.masks.mask import PrefixMask
from ciess.reporting.report import NO_TESTS
from ciess.runs.directory import open_run, read_visited
from ciess.runs.retrain import retrain, retrain_run
from ciess.runs.search import open_reference
from ciess.search.candidates import Candidate, to_table
from ciess.search.recorder import search_fingerprint
from ciess.search.reference import environment_of
from ciess.search.search import Search
from ciess.storage.columns import EQUAL_WON
from ciess.storage.storage import Storage
from ciess.tables.table import CompressedTable, load
from ciess.training import loop as fit_module
from ciess.training.loop import Training

MAX_SIZE = 16
QUICK = [
    *("--max-size", "16", "--threads", "1", "--device", "cpu", "--agent.hidden", "16"),
    *("--training.learning-rate", "0.05", "--training.learning-rate-decay", "1", "--training.decay", "1e-4"),
    *("--training.batch-size", "500", "--training.max-epochs", "6", "--training.evaluate-every", "2"),
]


@pytest.fixture(scope="module")
def ratings(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = planted.data
    pairs = data.train + data.valid + data.test
    path = tmp_path_factory.mktemp("data") / "ratings.csv"
    csv.write_csv(pa.table({"user_id": pairs.users, "item_id": pairs.items}), path)
    return path


@pytest.fixture(scope="module")
def data(ratings: Path) -> Interactions:
    return read(ratings)


@pytest.fixture(scope="module")
def config(small_config: Callable[..., RecommenderConfig]) -> SearchConfig:
    recommender = small_config(learning_rate=0.05, max_epochs=12, evaluate_every=2, patience=2)
    fields = {name: getattr(recommender, name) for name in RecommenderConfig.model_fields}
    return SearchConfig(**fields, sparsities=(0.8, 0.9), candidates=2, random_walk=False)


def visited(data: Interactions) -> list[Candidate]:
    """At 80 % equal sizes serve better than any of these, at 90 % two dimensions for users are the best."""
    users = np.arange(data.n) < data.n_users
    parts = [(np.where(users, 1, 2), 0.6), (np.where(users, 2, 1), 0.7), (np.full(data.n, 10), 0.9)]
    return [
        Candidate(1, place, 0, float(masks.sparsity(mask)), ratio, ratio, ratio / 2, "search", mask)
        for place, (sizes, ratio) in enumerate(parts, start=1)
        for mask in [PrefixMask(sizes.astype(np.int16), MAX_SIZE)]
    ]


@pytest.fixture(scope="module")
def finished_search(data: Interactions, config: SearchConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a reference and three masks."""
    run = Storage(tmp_path_factory.mktemp("search") / "run")
    open_run(run, data, config, DataConfig())
    open_reference(data, config, run)
    run.write_table("candidates.parquet", to_table(visited(data), data.n))
    return Path(run.root)


@pytest.fixture
def searched(finished_search: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    shutil.copytree(finished_search, tmp_path / "run")
    return tmp_path / "run"


def settings(*sparsity: float, **changes: Any) -> RetrainConfig:
    return RetrainConfig(sparsity=sparsity or (0.8, 0.9), **changes)


@pytest.fixture(scope="module")
def undisturbed(
    finished_search: Path, data: Interactions, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Two budgets served, one that none keeps: the run directory and the text."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    shutil.copytree(finished_search, out)
    return out, retrain_run(str(out), settings(0.8, 0.9, 0.93), data)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs as they are trained."""
    epochs: list[int] = []
    train = Training.epoch

    def spy(self: Training, epoch: int) -> float:
        epochs.append(epoch)
        return train(self, epoch)

    monkeypatch.setattr(fit_module.Training, "epoch", spy)
    return epochs


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than the trainings here."""
    monkeypatch.setattr("ciess.runs.retrain.search_figures", lambda *_: {})
    monkeypatch.setattr("ciess.runs.retrain.write_report", lambda *_: [])


def same(first: Storage, second: Storage) -> None:
    """What two runs found, but the seconds."""
    for file in ("results.parquet", "retrained.parquet", "per_user.parquet"):
        tables = [run.read_table(file) for run in (first, second)]
        found = [table.drop_columns("seconds") if "seconds" in table.column_names else table for table in tables]
        assert found[0].equals(found[1]), file
    assert first.child("tables").names() == second.child("tables").names()
    for name in first.child("tables").names():
        for file in ("weights.safetensors", "model.safetensors", "edges.parquet", "history.parquet"):
            assert first.read_bytes(f"tables/{name}/{file}") == second.read_bytes(f"tables/{name}/{file}"), (name, file)


def words(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


class TestText:
    def test_a_budget_that_no_mask_keeps_is_said_and_the_others_are_served(self, undisturbed: tuple[Path, str]) -> None:
        lines = undisturbed[1].splitlines()
        assert lines[0].startswith(
            "No mask of this search keeps a sparsity of 0.93: the sparsest one visited has 0.9125"
        )
        assert lines[0].endswith("or project the best mask to the budget with --project.")
        tables = Storage(undisturbed[0]).child("tables").names()
        assert not [name for name in tables if "c93" in name]

    def test_one_table_of_all_methods(self, undisturbed: tuple[Path, str]) -> None:
        lines = undisturbed[1].splitlines()
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

    def test_what_stood_for_choice(self, undisturbed: tuple[Path, str]) -> None:
        run, lines = Storage(undisturbed[0]), undisturbed[1].splitlines()
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

    def test_tests_are_those_against_equal_sizes(self, undisturbed: tuple[Path, str]) -> None:
        """Without the table that has equal sizes itself, unless these are filled."""
        run, text = Storage(undisturbed[0]), undisturbed[1]
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

    def test_files_are_named_and_nothing_is_left_behind(self, undisturbed: tuple[Path, str]) -> None:
        out, text = undisturbed
        assert f"wrote {out}/report.html" in text.splitlines()
        assert (out / "figures" / "visited.png").exists()
        assert not (out / "progress").exists()

    def test_the_search_is_named_in_the_results(
        self, undisturbed: tuple[Path, str], data: Interactions, config: SearchConfig
    ) -> None:
        rows = Storage(undisturbed[0]).read_table("results.parquet").to_pylist()
        found = {(row["method"], row["search_id"], row["random_walk"], row["walk_weights"]) for row in rows}
        fixed = {(method, None, None, None) for method in ("full", "equal", "mixed")}
        assert found == fixed | {("ciess", search_fingerprint(data, config)[:12], False, None)}
        assert {row["noise"] for row in rows if row["method"] == "ciess"} == {"gaussian"}


class TestGoingOn:
    def test_an_interrupted_retraining_ends_as_an_undisturbed_one(
        self,
        undisturbed: tuple[Path, str],
        searched: Path,
        data: Interactions,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Broken off every 25 epochs, and before every table is saved."""
        train, save = Training.epoch, CompressedTable.save
        done = {"epochs": 0}
        unsaved: set[str] = set()

        def epoch(self: Training, number: int) -> float:
            done["epochs"] += 1
            if done["epochs"] % 25 == 0:
                raise KeyboardInterrupt
            return train(self, number)

        def save_or_not(self: CompressedTable, folder: Any) -> None:
            if folder.root not in unsaved:
                unsaved.add(folder.root)
                raise KeyboardInterrupt
            save(self, folder)

        monkeypatch.setattr(fit_module.Training, "epoch", epoch)
        monkeypatch.setattr(CompressedTable, "save", save_or_not)
        text, breaks = "", 0
        while not text:
            assert breaks < 60
            try:
                text = retrain_run(str(searched), settings(0.8, 0.9, 0.93), data)
            except KeyboardInterrupt:
                breaks += 1
        assert breaks > len(unsaved) == 8
        same(Storage(searched), Storage(undisturbed[0]))
        assert not (searched / "progress").exists()
        assert text.replace(str(searched), "OUT") == undisturbed[1].replace(str(undisturbed[0]), "OUT")

    def test_a_finished_one_trains_nothing(
        self, undisturbed: tuple[Path, str], data: Interactions, tmp_path: Path, trained: list[int], undrawn: None
    ) -> None:
        shutil.copytree(undisturbed[0], tmp_path / "run")
        text = retrain_run(str(tmp_path / "run"), settings(0.9, 0.8), data)
        assert trained == []
        results = [
            sorted(map(str, Storage(run).read_table("results.parquet").to_pylist()))
            for run in (tmp_path / "run", undisturbed[0])
        ]
        assert results[0] == results[1]
        assert text.splitlines()[0] == "ratings, lightgcn"

    def test_seeds_and_budgets_may_be_added(
        self, undisturbed: tuple[Path, str], data: Interactions, tmp_path: Path, undrawn: None
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(undisturbed[0], out)
        text = retrain_run(str(out), settings(0.8, seeds=(1,), compare=("equal", "full")), data)
        run = Storage(out)
        recorded = run.read_table("retrained.parquet").to_pylist()
        assert sorted({(row["target_sparsity"], row["seed"]) for row in recorded}) == [(0.8, 0), (0.8, 1), (0.9, 0)]
        head, *lines = [words(line) for line in text.partition("\n\n")[0].splitlines()[1:]]
        by_name = {line[0] + line[1]: line for line in lines}
        assert by_name["ciess80 %"][head.index("seeds")] == "2"
        assert by_name["ciess90 %"][head.index("seeds")] == "1"
        assert " ±" in by_name["ciess80 %"][head.index("valid quality")]
        winners = {row["seed"]: row["origin"] for row in recorded if row["selected"] and row["target_sparsity"] == 0.8}
        assert winners == {0: "equal", 1: "equal"}
        assert by_name["ciess80 %"][-1] == EQUAL_WON


class TestRefusals:
    def refusal(self, error: type[InputError], out: Path, data: Interactions, *sparsity: float) -> str:
        before = sorted(path for path in out.parent.rglob("*"))
        with pytest.raises(error) as caught:
            retrain_run(str(out), settings(*sparsity), data)
        assert sorted(path for path in out.parent.rglob("*")) == before
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(str(out), "OUT")

    def test_no_budget_is_kept(self, searched: Path, data: Interactions, trained: list[int]) -> None:
        message = self.refusal(BudgetError, searched, data, 0.99, 0.935, 0.93)
        assert message.startswith(
            "No mask of this search keeps a sparsity of 0.93: the sparsest one visited has 0.9125"
        )
        assert trained == []

    def test_an_impossible_budget_does_not_keep_others_from_being_served(
        self, searched: Path, data: Interactions, undrawn: None
    ) -> None:
        text = retrain_run(str(searched), settings(0.99, 0.9, compare=()), data)
        assert text.splitlines()[0] == (
            f"A sparsity of 0.99 leaves 32 parameters for {data.n} rows, but every row keeps at least 1 of its 16 "
            "dimensions. Choose a sparsity of at most 0.9375."
        )
        assert Storage(searched).child("tables").names() == ["ciess-c90-s0"]
        assert NO_TESTS in text
        assert text.endswith(f"use a table with: ciess recommend {searched}/tables/ciess-c90-s0 --user ID -k 10")

    def test_other_data(self, searched: Path, planted: Planted) -> None:
        message = self.refusal(RunDirectoryError, searched, planted.data)
        assert message.startswith("OUT was made from data with sha256 ")

    def test_another_split_of_the_data(self, searched: Path, ratings: Path) -> None:
        message = self.refusal(RunDirectoryError, searched, read(ratings, split_seed=3))
        assert "holds the reference of other data, backbone settings or seed" in message

    def test_data_without_test_pairs(self, searched: Path, data: Interactions) -> None:
        message = self.refusal(DataError, searched, dataclasses.replace(data, test=Pairs.none()))
        assert message == (
            f"{data.source} has 0 test pairs, but one or more were expected. Give data with more interactions a user."
        )

    def test_a_search_without_candidates(self, searched: Path, data: Interactions) -> None:
        expected = (
            "OUT holds no candidates: its search has finished no iteration. At least one was expected. Go on with "
            "`ciess search ... --resume` first."
        )
        run = Storage(searched)
        equal = [dataclasses.replace(one, origin="equal") for one in visited(data)]
        run.write_table("candidates.parquet", to_table(equal, data.n))
        assert self.refusal(RunDirectoryError, searched, data) == expected
        run.delete("candidates.parquet")
        assert self.refusal(RunDirectoryError, searched, data) == expected

    @pytest.mark.parametrize("damage", ["cut", "columns", "sizes"])
    def test_candidates_that_cannot_be_read(self, searched: Path, data: Interactions, damage: str) -> None:
        run = Storage(searched)
        table = run.read_table("candidates.parquet")
        if damage == "cut":
            run.write_bytes("candidates.parquet", run.read_bytes("candidates.parquet")[:-100])
        elif damage == "columns":
            run.write_table("candidates.parquet", table.drop_columns("quality"))
        else:
            wide = [dataclasses.replace(one, mask=PrefixMask(one.mask.sizes * 9, 99)) for one in visited(data)]
            run.write_table("candidates.parquet", to_table(wide, data.n))
        message = self.refusal(RunDirectoryError, searched, data)
        assert message.startswith("OUT/candidates.parquet cannot be read (")
        assert message.endswith("Restore the file, or go on with the search by --resume, which writes it anew.")

    def test_results_of_a_retraining_that_cannot_be_read(self, searched: Path, data: Interactions) -> None:
        Storage(searched).write_bytes("retrained.parquet", b"PAR1")
        message = self.refusal(RunDirectoryError, searched, data)
        assert message.startswith("OUT/retrained.parquet is not a Parquet file that can be read")

    @pytest.mark.parametrize("kind", ["missing", "empty", "foreign", "fit"])
    def test_a_folder_without_a_search(self, tmp_path: Path, data: Interactions, searched: Path, kind: str) -> None:
        out = tmp_path / "other"
        if kind != "missing":
            out.mkdir()
        if kind == "foreign":
            (out / "config.yaml").write_text("theme: dark\n")
        if kind == "fit":
            found = Storage(searched).read_yaml("config.yaml")
            del found["config"]["short_fit"]
            Storage(out).write_yaml("config.yaml", found)
        assert self.refusal(RunDirectoryError, out, data) == (
            "OUT holds no search: a config.yaml that `ciess search` wrote was expected. Check the path, or start one "
            "with `ciess search DATA --out DIR`."
        )


class TestInPython:
    @pytest.fixture
    def search(self, searched: Path, data: Interactions, config: SearchConfig) -> Search:
        run = Storage(searched)
        search = Search(config, environment_of(data, config, open_reference(data, config, run)))
        search.visited = read_visited(run, config)
        search.run = run
        return search

    def test_a_search_becomes_a_table(self, search: Search, data: Interactions, undisturbed: tuple[Path, str]) -> None:
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
        assert search.run.read_bytes(name) == Storage(undisturbed[0]).read_bytes(name)

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
