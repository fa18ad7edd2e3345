import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from ciess.tables.card import FORMAT, content_sha256
from ciess.tables.table import load

Ciess = Callable[..., tuple[int, str, str]]


def _pairs(ratings: Path) -> list[tuple[str, int]]:
    content = csv.read_csv(ratings)
    return list(zip(content["who"].to_pylist(), content["what"].to_pylist(), strict=True))


def _all_of(table: Path) -> list[Any]:
    return ["recommend", table, "--user", "u007", "-k", "1000"]


class TestRecommend:
    def test_one_user(self, ciess: Ciess, table: Path, ratings: Path) -> None:
        status, out, err = ciess("recommend", table, "--user", "u007", "-k", "4")
        assert (status, err) == (0, "")
        rows = [line.split() for line in out.splitlines()]
        expected = load(table).recommend("u007", k=4)
        assert [int(rank) for rank, _, _ in rows] == [1, 2, 3, 4]
        assert [int(item) for _, item, _ in rows] == expected.items
        assert [score for _, _, score in rows] == [f"{score:.4f}" for score in expected.scores]
        known = {what for who, what in _pairs(ratings) if who == "u007"}
        assert known.isdisjoint(expected.items)

    def test_known_items_can_be_included(self, ciess: Ciess, table: Path, ratings: Path) -> None:
        known = {what for who, what in _pairs(ratings) if who == "u007"}
        items = {int(line.split()[1]) for line in ciess(*_all_of(table), "--include-seen")[1].splitlines()}
        assert known < items
        assert known.isdisjoint(int(line.split()[1]) for line in ciess(*_all_of(table))[1].splitlines())

    def test_ten_items_by_default(self, ciess: Ciess, table: Path) -> None:
        assert len(ciess("recommend", table, "--user", "u007")[1].splitlines()) == 10

    @pytest.mark.parametrize("users", ["users.txt", "users.parquet"])
    @pytest.mark.parametrize("out", ["lists.csv", "lists.parquet"])
    def test_many_users_to_a_file(
        self, ciess: Ciess, table: Path, tmp_path: Path, users: str, out: str, write: Callable[..., Path]
    ) -> None:
        wanted = ["u011", "u002", "u099"]
        if users.endswith(".txt"):
            write(tmp_path / users, "u011\n\n u002 \nu099\n")
        else:
            pq.write_table(pa.table({"other": [1, 2, 3], "user_id": wanted}), tmp_path / users)
        status, said, err = ciess("recommend", table, "--users", tmp_path / users, "--out", tmp_path / out, "-k", "2")
        assert (status, said, err) == (0, f"{tmp_path / out}: 6 recommendations\n", "")
        found = csv.read_csv(tmp_path / out) if out.endswith(".csv") else pq.read_table(tmp_path / out)
        expected = load(table).recommend_many(wanted, k=2)
        assert found.column_names == ["user_id", "rank", "item_id", "score"]
        for name in ("user_id", "rank", "item_id"):
            assert found[name].to_pylist() == expected[name].to_pylist()
        assert found["score"].to_pylist() == pytest.approx(expected["score"].to_pylist(), rel=1e-6)

    def test_an_unknown_user(
        self, refusal: Callable[..., str], table: Path, tmp_path: Path, write: Callable[..., Path]
    ) -> None:
        text = (
            "The user 'nobody' is not in the table{}. Expected the id of one of its 120 users, such as 'u000', "
            "'u001', 'u002'. Give an id as it stands in the data that the table was trained on; a user without "
            "interactions has no row."
        )
        assert refusal("recommend", table, "--user", "nobody") == text.format("")
        users = write(tmp_path / "users.txt", "u001\nnobody\nnoone\n")
        out = tmp_path / "lists.csv"
        assert refusal("recommend", table, "--users", users, "--out", out) == text.format(
            " (2 of the 3 asked for are not)"
        )
        assert not out.exists()

    @pytest.mark.parametrize(
        "options",
        [[], ["--user", "u001", "--users", "f", "--out", "g"], ["--users", "f"], ["--user", "u001", "--out", "g"]],
    )
    def test_either_one_user_or_many(self, refusal: Callable[..., str], table: Path, options: list[str]) -> None:
        text = refusal("recommend", table, *options)
        assert text.endswith(
            "Expected --user ID or --history ITEMS alone, or --users FILE together with --out FILE. Give one of these."
        )
        assert text.startswith(f"Found {' '.join(options) or 'none of them'}. ")

    def test_users_that_cannot_be_read(
        self, refusal: Callable[..., str], table: Path, tmp_path: Path, write: Callable[..., Path]
    ) -> None:
        write(tmp_path / "latin.txt", b"u001\n\xff\n")
        write(tmp_path / "broken.parquet", b"PAR1")
        for name in ("missing.txt", "missing.parquet", "latin.txt", "broken.parquet"):
            text = refusal("recommend", table, "--users", tmp_path / name, "--out", tmp_path / "lists.csv")
            assert text.startswith(f"Cannot read users from TMP/{name}: ")
            assert "Expected a text file with one id a line, or a Parquet file with a column user_id." in text
        pq.write_table(pa.table({"who": ["u001"], "what": [3]}), tmp_path / "other.parquet")
        assert refusal("recommend", table, "--users", tmp_path / "other.parquet", "--out", tmp_path / "o.csv") == (
            "TMP/other.parquet has no column user_id. The columns found are: who, what. Expected the ids in user_id. "
            "Rename their column."
        )

    def test_a_file_without_users(
        self, refusal: Callable[..., str], table: Path, tmp_path: Path, write: Callable[..., Path]
    ) -> None:
        users = write(tmp_path / "users.txt", "\n")
        assert refusal("recommend", table, "--users", users, "--out", tmp_path / "lists.csv") == (
            "TMP/users.txt names no user. Expected one id a line, or rows in user_id. Put the ids into it."
        )

    def test_the_ending_chooses_the_format(
        self, refusal: Callable[..., str], table: Path, tmp_path: Path, write: Callable[..., Path]
    ) -> None:
        users = write(tmp_path / "users.txt", "u001\n")
        assert refusal("recommend", table, "--users", users, "--out", tmp_path / "lists.txt") == (
            "The output file is TMP/lists.txt, but a name that ends in .csv or .parquet was expected: the ending "
            "chooses the format. Rename it."
        )

    def test_a_refusal_is_no_crash_at_exit(self, table: Path) -> None:
        """Arrow's threads and torch's must not abort a process that ends soon after it has read a table."""
        command = [sys.executable, "-m", "ciess", "recommend", str(table), "--user", "nobody"]
        for _ in range(5):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr

    @pytest.mark.parametrize("out", ["lists.csv", "lists.parquet"])
    def test_a_file_that_cannot_be_written(
        self, refusal: Callable[..., str], table: Path, tmp_path: Path, out: str, write: Callable[..., Path]
    ) -> None:
        users = write(tmp_path / "users.txt", "u001\n")
        text = refusal("recommend", table, "--users", users, "--out", tmp_path / "nowhere" / out)
        assert text.startswith(f"Cannot write TMP/nowhere/{out}: ")

    def test_no_items(self, refusal: Callable[..., str], table: Path) -> None:
        assert refusal("recommend", table, "--user", "u001", "-k", "0") == (
            "k is 0, but the number of items to recommend must be 1 or more. Choose such a k."
        )

    @pytest.mark.parametrize(
        "file", ["weights.safetensors", "model.safetensors", "ids.parquet", "edges.parquet", "card.json"]
    )
    def test_a_changed_byte(
        self, refusal: Callable[..., str], table: Path, file: str, write: Callable[..., Path]
    ) -> None:
        content = bytearray((table / file).read_bytes())
        if file == "card.json":
            content = bytearray(content.replace(b'"equal"', b'"Equal"', 1))
        else:
            content[-1] ^= 1
        write(table / file, bytes(content))
        text = refusal("recommend", table, "--user", "u001")
        assert f"TMP/table/{file}" in text
        assert "changed" in text or "sha256" in text

    def test_a_newer_format(self, refusal: Callable[..., str], table: Path, write: Callable[..., Path]) -> None:
        card = json.loads((table / "card.json").read_text()) | {"format": FORMAT + 1}
        write(table / "card.json", json.dumps(card | {"card_sha256": content_sha256(card)}))
        text = refusal("recommend", table, "--user", "u001")
        assert text.startswith(f"TMP/table/card.json is of format {FORMAT + 1}, but this version of ciess (")
        assert "Upgrade ciess" in text

    def test_a_folder_without_a_table(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        text = refusal("recommend", tmp_path / "nothing", "--user", "u001")
        assert text.startswith("TMP/nothing holds no card.json, but a saved table was expected")
