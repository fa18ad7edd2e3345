"""Every input that cannot be used is refused in one paragraph: what was found, what was expected, what to do."""

import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ciess.data import read
from ciess.errors import DataError, InputError


def refusal(path, error=DataError, **options):
    with pytest.raises(error) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "Expected" in message
    assert "\n" not in message
    return message.replace(str(path), "PATH")


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_missing_file(tmp_path):
    assert refusal(tmp_path / "ratings.dat") == (
        "PATH does not exist. Expected a file or folder with interactions, such as ml-1m/ratings.dat. "
        "Check the path; relative paths start at the current directory."
    )


def test_unknown_scheme():
    assert refusal("nosuch://bucket/x").startswith("PATH cannot be reached (")


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_empty_file(tmp_path, content):
    assert refusal(write(tmp_path, "u.data", content)) == (
        "PATH: u.data is empty. Expected one interaction or more. Check that it was downloaded or written completely."
    )


def test_header_without_interactions(tmp_path):
    assert refusal(write(tmp_path, "x.csv", "user_id,item_id\n")) == (
        "PATH holds a header and no interactions. Expected one interaction or more below the header. "
        "Check that the file was written completely."
    )


def test_parquet_without_rows(tmp_path):
    path = table(tmp_path / "x.parquet", user_id=pa.array([], pa.int64()), item_id=pa.array([], pa.int64()))
    assert refusal(path).startswith("PATH holds no rows. Expected one interaction or more.")


@pytest.mark.parametrize(
    ("name", "text", "line", "fields"),
    [
        ("ratings.dat", "1::2::3::4\n1:3::3::4\n", "line 2 is malformed: '1:3::3::4'", "apart by '::'"),
        (
            "ratings.dat",
            "1::2::3::4\n1::x::3::4\n",
            "line 2 is malformed: '1::x::3::4'",
            "whole numbers as MovieLens ids",
        ),
        (
            "u.data",
            "1\t2\t3\t4\n\n1\t2\t3\n",
            "line 3 is malformed: '1\\t2\\t3'",
            "4 fields (user, item, rating, timestamp)",
        ),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4\n1,2\n", "line 3 is malformed: '1,2'", "4 fields"),
        (
            "x.inter",
            "user_id:token\titem_id:token\n1\t2\n1\n",
            "line 3 is malformed: '1'",
            "2 fields (user_id, item_id)",
        ),
        ("x.csv", 'user_id,item_id\n\n"a,b",2\na,b,c\n', "line 4 is malformed: 'a,b,c'", "2 fields (user_id, item_id)"),
        ("x.csv", b"user_id,item_id\n1,2\n\xff\xfe,2\n", "line 3 is malformed", "in UTF-8"),
        ("x.txt", "1 2 3\n4 5 x\n", "line 2 is malformed: '4 5 x'", "a user and then the user's items"),
    ],
)
def test_malformed_line(tmp_path, name, text, line, fields):
    message = refusal(write(tmp_path, name, text))
    assert line in message
    assert fields in message
    assert "Correct this line, or tell the reader another format." in message


def test_malformed_rating(tmp_path):
    path = write(tmp_path, "x.csv", "user_id,item_id,rating\n1,2,good\n")
    assert "line 2 is malformed: '1,2,good'" in refusal(path, min_rating=3)


def test_malformed_line_of_a_lightgcn_set_names_its_file(tmp_path):
    write(tmp_path, "train.txt", "0 1 2\n")
    write(tmp_path, "test.txt", "0 -3\n")
    assert "PATH (test.txt), line 1 is malformed: '0 -3'" in refusal(tmp_path)


def test_unknown_format_of_a_file(tmp_path):
    assert refusal(write(tmp_path, "x.xlsx", "hello world\n")) == (
        "PATH: the format is not recognised; the first line is 'hello world'. Expected one of: movielens-dat, "
        "movielens-tab, movielens-csv, recbole, lightgcn, csv, tsv, parquet. Pass one as format; for a table, name its "
        "columns with user_column and item_column."
    )


def test_unknown_format_told(tmp_path):
    assert refusal(tmp_path, format="excel") == (
        "'excel' is no known format. Expected one of: auto, movielens-dat, movielens-tab, movielens-csv, recbole, "
        "lightgcn, csv, tsv, parquet. Pass one as format."
    )


def test_unknown_column_lists_those_found(tmp_path):
    assert refusal(write(tmp_path, "x.csv", "user,item,stars\n1,2,3\n")) == (
        "PATH has no column 'user_id'. The columns found are: user, item, stars. Expected one column each of user_id, "
        "item_id. Name them with user_column, item_column and rating_column."
    )


def test_unknown_column_of_parquet_and_of_ratings(tmp_path):
    path = table(tmp_path / "x.parquet", user_id=[1], item_id=[2])
    message = refusal(path, min_rating=3)
    assert message.startswith("PATH has no column 'rating'. The columns found are: user_id, item_id.")


def test_column_that_comes_twice(tmp_path):
    path = write(tmp_path, "x.csv", "user_id,item_id,user_id\n1,2,3\n")
    assert refusal(path).startswith("PATH has more than one column 'user_id'.")


def test_broken_parquet(tmp_path):
    message = refusal(write(tmp_path, "x.parquet", b"PAR1 and then nothing"))
    assert message.startswith("PATH is no Parquet file that can be read (")


def test_broken_archive(tmp_path):
    message = refusal(write(tmp_path, "x.zip", b"PK no archive"))
    assert message.startswith("PATH is no zip archive that can be opened (")


def test_folder_without_a_known_file(tmp_path):
    write(tmp_path, "notes.md", "hello")
    assert refusal(tmp_path) == (
        "PATH holds no file in a known format: notes.md. Expected one of ratings.dat, u.data, ratings.csv, a .inter, "
        ".parquet, .csv or .tsv file, or train.txt with test.txt. Give the path of the file itself, and its format if "
        "need be."
    )


def test_folder_with_two_candidates(tmp_path):
    write(tmp_path, "a.csv", "user_id,item_id\n1,2\n")
    write(tmp_path, "b.csv", "user_id,item_id\n1,2\n")
    assert refusal(tmp_path).startswith("PATH holds more than one file that may hold the interactions: a.csv, b.csv.")


def test_half_of_a_lightgcn_pair(tmp_path):
    path = write(tmp_path, "train.txt", "0 1 2\n")
    assert refusal(path) == (
        "PATH: there is no test.txt beside train.txt. Expected train.txt and test.txt together, as LightGCN ships "
        "them. Put both into one folder; a single unsplit file of this format needs another name."
    )


def test_nan_ids_in_a_numeric_column(tmp_path):
    path = table(tmp_path / "x.parquet", user_id=[1.0, float("nan")], item_id=[1, 2])
    assert refusal(path) == (
        "PATH: 1 user ids are missing or NaN, the first in data row 2. Expected an id in every row. "
        "Remove these rows or fill in the ids."
    )


@pytest.mark.parametrize("absent", ["", "nan", "NULL"])
def test_missing_ids_in_text_files(tmp_path, absent):
    path = write(tmp_path, "x.csv", f"user_id,item_id\n1,2\n1,{absent}\n1,4\n")
    assert "PATH: 1 item ids are missing or NaN, the first in data row 2." in refusal(path)
    path = write(tmp_path, "u.data", f"1\t2\t3\t4\n{absent}\t2\t3\t4\n")
    assert "PATH: 1 user ids are missing or NaN, the first in data row 2." in refusal(path)


def test_missing_ids_in_parquet(tmp_path):
    path = table(tmp_path / "x.parquet", user_id=["a", None, None], item_id=[1, 2, 3])
    assert "PATH: 2 user ids are missing or NaN, the first in data row 2." in refusal(path)


def test_negative_ids(tmp_path):
    expected = (
        "PATH: 2 item ids are negative, the first -1 in data row 2. Expected whole numbers from 0; negative ones often "
        "stand for a missing id. Remove these rows, or give the ids as text."
    )
    assert refusal(table(tmp_path / "x.parquet", user_id=[1, 1, 1], item_id=[1, -1, -2])) == expected
    assert refusal(write(tmp_path, "x.csv", "user_id,item_id\n1,1\n1,-1\n1,-2\n")) == expected


def test_fractions_are_no_ids(tmp_path):
    message = refusal(table(tmp_path / "x.parquet", user_id=[1.5, 2.0], item_id=[1, 2]))
    assert "floating-point numbers, 1 of them no whole numbers within 2^53, such as 1.5." in message


def test_types_that_are_no_ids(tmp_path):
    message = refusal(table(tmp_path / "x.parquet", user_id=[True, False], item_id=[1, 2]))
    assert message.startswith("PATH: the user ids are of type bool. Expected whole numbers or text.")


def test_ids_beyond_64_bits(tmp_path):
    message = refusal(table(tmp_path / "x.parquet", user_id=pa.array([2**63 + 1], pa.uint64()), item_id=[1]))
    assert message.startswith("PATH: the user ids do not fit into 64-bit signed integers (")
    message = refusal(write(tmp_path, "x.txt", f"1 {2**64}\n"))
    assert message.startswith("PATH: an id does not fit into 64-bit signed integers (")


def test_users_with_one_interaction(tmp_path):
    message = refusal(write(tmp_path, "x.txt", "1 2\n2 3 4\n"))
    assert message.startswith("PATH: 1 of 2 users have too few interactions to split.")
    assert "Pass min_interactions=2 to drop these users" in message


def test_missing_ratings_under_min_rating(tmp_path):
    path = write(tmp_path, "x.csv", "user_id,item_id,rating\n1,2,\n1,3,5\n1,4,nan\n")
    assert refusal(path, min_rating=3) == (
        "PATH: 2 of 3 rows have no rating, so min_rating=3 cannot judge them. Expected a rating in every row. "
        "Leave min_rating out, or remove or fill these rows."
    )


def test_ratings_that_are_no_numbers(tmp_path):
    path = table(tmp_path / "x.parquet", user_id=[1], item_id=[2], rating=["good"])
    assert refusal(path, min_rating=3).startswith("PATH: the column 'rating' is of type string and cannot be read")


def test_min_rating_that_leaves_nothing(tmp_path):
    path = write(tmp_path, "u.data", "1\t2\t3\t4\n1\t3\t5\t4\n")
    assert refusal(path, min_rating=6) == (
        "PATH: no row is left of 2 with min_rating=6. Expected one interaction or more; the highest rating is 5. "
        "Lower min_rating."
    )


def test_drop_first_row_that_leaves_nothing(tmp_path):
    path = write(tmp_path, "u.data", "1\t2\t3\t4\n")
    assert refusal(path, drop_first_row=True) == (
        "PATH: no row is left of 1 after drop_first_row. Expected one interaction or more. Leave drop_first_row out."
    )


def test_min_interactions_that_leaves_nobody(tmp_path):
    assert refusal(write(tmp_path, "x.txt", "1 2 3\n2 3\n"), min_interactions=9) == (
        "PATH: none of 2 users has min_interactions=9 interactions. Expected one such user or more. "
        "Lower min_interactions; the most active user has 2."
    )


@pytest.mark.parametrize("options", [{"min_rating": 3}, {"drop_first_row": True}])
def test_options_that_a_format_cannot_serve(tmp_path, options):
    (option,) = options
    assert refusal(write(tmp_path, "x.txt", "1 2 3\n"), InputError, **options) == (
        "PATH is of the format lightgcn, which has neither ratings nor one row an interaction. Expected no "
        f"{option} with it. Leave {option} out, or give the data in another format."
    )


def test_pair_in_two_splits(tmp_path):
    write(tmp_path, "train.txt", "0 1 2 3\n")
    write(tmp_path, "test.txt", "0 2 3 4\n")
    assert refusal(tmp_path) == (
        "PATH: 2 user-item pairs stand in more than one split. Expected each pair in one split. "
        "Remove them from all splits but one, or pass pool_splits=True to pool all and split anew."
    )


def test_users_without_a_training_pair(tmp_path):
    write(tmp_path, "train.txt", "0 1 2 3\n")
    write(tmp_path, "test.txt", "0 4\n1 4\n2 1\n")
    assert refusal(tmp_path) == (
        "PATH: 2 of 3 users stand only in valid or test, without a training pair. Expected one training pair or more "
        "for every user. Remove these users, or pass pool_splits=True to split anew."
    )


def test_split_that_lacks_a_part(tmp_path):
    path = write(tmp_path, "x.csv", "user_id,item_id,split\n1,2,train\n1,3,valid\n")
    assert refusal(path) == (
        "PATH: the input is split but holds only train and valid pairs. Expected train and test, or train, valid and "
        "test. Add what is missing, or pass pool_splits=True to pool all and split anew."
    )


def test_unknown_split_name(tmp_path):
    path = write(tmp_path, "x.csv", "user_id,item_id,split\n1,2,train\n1,3,holdout\n")
    assert refusal(path) == (
        "PATH: 1 rows have 'holdout' in the column 'split'. Expected train, valid or test in every row. "
        "Rename the values, or drop the column to have the data split at random."
    )


def test_encrypted_or_unreadable_member(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("ratings.dat", "1::2::3::4\n" * 4)
    damaged = path.read_bytes().replace(b"1::2::3::4\n", b"9::9::9::9\n", 1)
    message = refusal(write(tmp_path, "x.zip", damaged))
    assert message.startswith("PATH: ratings.dat cannot be read (")
