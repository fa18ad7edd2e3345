from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ciess.data import planted, read
from ciess.data.planted import Planted

Ciess = Callable[..., tuple[int, str, str]]


class TestData:
    def test_counts(self, ciess: Ciess, ratings: Path, planted: Planted, columns: list[str]) -> None:
        status, out, err = ciess("data", ratings, *columns)
        assert (status, err) == (0, "")
        counts = planted.data.counts()
        for name in ("users", "items", "interactions"):
            assert f"{counts[name]:,}" in out

    def test_embedded_planted_data(self, ciess: Ciess) -> None:
        counts = planted().data.counts()
        assert f"{counts['interactions']:,}" in ciess("data", "planted")[1]

    def test_embedded_data_takes_no_reading_options(self, refusal: Callable[..., str]) -> None:
        assert refusal("data", "planted", "--min-rating", "3") == (
            "The embedded planted data takes no reading options but --split-seed; some were given. Leave them out."
        )

    def test_a_file_of_that_name_goes_first(
        self, ciess: Ciess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "planted", "user_id,item_id\n" + "".join(f"1,{item}\n" for item in range(8)))
        status, out, _ = ciess("data", "planted", "--format", "csv")
        assert status == 0
        assert "interactions" in out
        assert f"{planted().data.n_users:,}" not in out

    @pytest.mark.parametrize("command", [["data"], ["fit", "--out", "RUN"], ["bench"]])
    @pytest.mark.parametrize(
        ("name", "content", "options", "text"),
        [
            (
                "missing.csv",
                None,
                [],
                "PATH does not exist. Expected a file or folder with interactions, such as ml-1m/ratings.dat. Check "
                "the path; relative paths start at the current directory.",
            ),
            (
                "u.data",
                "",
                [],
                "PATH: u.data is empty. Expected one interaction or more. Check that it was downloaded or written "
                "completely.",
            ),
            (
                "ratings.dat",
                "1::2::3::4\n1::3:3::4\n",
                [],
                "PATH, line 2 is malformed: '1::3:3::4'. Expected 4 fields (user, item, rating, timestamp) apart by "
                "'::', in UTF-8, with whole numbers as MovieLens ids and numbers as ratings. Correct this line, or "
                "tell the reader another format.",
            ),
            (
                "x.xlsx",
                "hello\n",
                [],
                "PATH: the format is not recognised; the first line is 'hello'. Expected one of: movielens-dat, "
                "movielens-tab, movielens-csv, recbole, lightgcn, csv, tsv, parquet. Pass one as format; for a table, "
                "name its columns with --user-column and --item-column.",
            ),
            (
                "x.csv",
                "user_id,item_id\n1,2\n",
                ["--format", "excel"],
                "'excel' is no known format. Expected one of: auto, movielens-dat, movielens-tab, movielens-csv, "
                "recbole, lightgcn, csv, tsv, parquet. Pass one as format.",
            ),
            (
                "x.csv",
                "user,item\n1,2\n",
                [],
                "PATH has no column 'user_id'. The columns found are: user, item. Expected one column each of "
                "user_id, item_id. Name them with --user-column, --item-column and --rating-column.",
            ),
            (
                "x.csv",
                "user_id,item_id\n1,2\n1,3\n1,4\n",
                ["--item-column", "film"],
                "PATH has no column 'film'. The columns found are: user_id, item_id. Expected one column each of "
                "user_id, film. Name them with --user-column, --item-column and --rating-column.",
            ),
            (
                "x.csv",
                "user_id,item_id\n1,2\n1,3\n1,4\n2,2\n",
                [],
                "PATH: 1 of 2 users have too few interactions to split. A user's training part is round(0.5 x "
                "interactions), halves to even, and must hold a pair. Expected 2 interactions or more of every user. "
                "Pass --min-interactions 2 to drop these users, or give data that is already split.",
            ),
            (
                "x.parquet",
                {"user_id": [1.0, float("nan")], "item_id": [1, 2]},
                [],
                "PATH: 1 user ids are missing or NaN, the first in data row 2. Expected an id in every row. Remove "
                "these rows or fill in the ids.",
            ),
            (
                "x.parquet",
                {"user_id": [1, 1], "item_id": [4, -4]},
                [],
                "PATH: 1 item ids are negative, the first -4 in data row 2. Expected whole numbers from 0; negative "
                "ones often stand for a missing id. Remove these rows, or give the ids as text.",
            ),
            (
                "x.csv",
                "user_id,item_id,rating\n1,2,\n1,3,5\n",
                ["--min-rating", "3"],
                "PATH: 1 of 2 rows have no rating, so --min-rating 3 cannot judge them. Expected a rating in every "
                "row. Leave --min-rating out, or remove or fill these rows.",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) and len(value) < 12 else "",
    )
    def test_data_that_cannot_be_read(
        self,
        refusal: Callable[..., str],
        tmp_path: Path,
        command: list[str],
        name: str,
        content: Any,
        options: list[str],
        text: str,
        write: Callable[..., Path],
    ) -> None:
        path = tmp_path / name
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        elif content is not None:
            write(path, content)
        arguments = [str(tmp_path / "run") if part == "RUN" else part for part in command]
        assert refusal(*arguments, path, *options).replace(f"TMP/{name}", "PATH") == text
        assert not (tmp_path / "run").exists()

    def test_duplicate_pairs_are_kept_once_counted_and_said(
        self, ciess: Ciess, tmp_path: Path, write: Callable[..., Path]
    ) -> None:
        path = write(tmp_path / "x.csv", "user_id,item_id\n1,2\n1,3\n1,2\n1,4\n1,4\n1,4\n1,5\n")
        status, out, err = ciess("data", path)
        assert status == 0
        assert err == "3 duplicate user-item pairs were merged: each pair is kept once.\n"
        assert read(path).counts()["interactions"] == 4
        assert "interactions" in out

    def test_dropped_users_are_counted_and_said(self, ciess: Ciess, tmp_path: Path, write: Callable[..., Path]) -> None:
        rows = [f"1,{item}" for item in range(8)] + ["2,0", "3,1"]
        path = write(tmp_path / "x.csv", "\n".join(["user_id,item_id", *rows]) + "\n")
        status, _, err = ciess("data", path, "--min-interactions", "2")
        assert status == 0
        assert err.startswith("2 users with fewer than 2 interactions were dropped (min_interactions)")

    @pytest.mark.parametrize(
        ("option", "value", "text"),
        [("--split-seed", "-1", "greater than or equal to 0"), ("--min-interactions", "0", "greater than 0")],
    )
    def test_reading_options_out_of_their_range(
        self, refusal: Callable[..., str], ratings: Path, option: str, value: str, text: str
    ) -> None:
        assert refusal("data", ratings, option, value) == (
            f"The options are not valid. {option}: found {value}; Input should be {text}. See --help for what each "
            "option takes."
        )


def test_one_column_cannot_be_both(refusal: Callable[..., str], ratings: Path) -> None:
    assert refusal("data", ratings, "--user-column", "who", "--item-column", "who") == (
        "--user-column and --item-column are both 'who'. Expected two columns. Name the right ones."
    )
