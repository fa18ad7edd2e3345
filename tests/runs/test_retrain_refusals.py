"""What a retraining refuses, and that it leaves the run directory as it was."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.config.retrain import RetrainConfig
from ciess.data import Interactions, Pairs, read
from ciess.data.planted import Planted
from ciess.errors import BudgetError, DataError, InputError, RunDirectoryError
from ciess.masks.mask import PrefixMask
from ciess.reporting.report import NO_TESTS
from ciess.runs.retrain import retrain_run
from ciess.search.candidates import to_table
from ciess.storage.storage import Storage

Call = Callable[..., Any]


class TestRefusals:
    def refusal(self, error: type[InputError], out: Path, data: Interactions, *sparsity: float) -> str:
        before = sorted(path for path in out.parent.rglob("*"))
        with pytest.raises(error) as caught:
            retrain_run(str(out), RetrainConfig(sparsity=sparsity or (0.8, 0.9)), data)
        assert sorted(path for path in out.parent.rglob("*")) == before
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(str(out), "OUT")

    def test_no_budget_is_kept(self, searched: Path, data: Interactions, trained_epochs: list[int]) -> None:
        message = self.refusal(BudgetError, searched, data, 0.99, 0.935, 0.93)
        assert message.startswith(
            "No mask of this search keeps a sparsity of 0.93: the sparsest one visited has 0.9125"
        )
        assert trained_epochs == []

    def test_an_impossible_budget_does_not_keep_others_from_being_served(
        self, searched: Path, data: Interactions, undrawn: None, settings: Call
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

    def test_a_search_without_candidates(self, searched: Path, data: Interactions, visited: Call) -> None:
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

    @pytest.mark.parametrize(
        ("damage", "found"),
        [
            ("cut", "is not a Parquet file that can be read ("),
            ("columns", "lacks the columns quality; the columns "),
            ("sizes", "cannot be read ("),
        ],
        ids=["cut", "columns", "sizes"],
    )
    def test_candidates_that_cannot_be_read(
        self, searched: Path, data: Interactions, damage: str, found: str, visited: Call
    ) -> None:
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
        assert message.startswith(f"OUT/candidates.parquet {found}")
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
