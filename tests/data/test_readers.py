import hashlib
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciess.data import read
from ciess.errors import InputError

PAIRS = [(10, 5), (10, 7), (10, 100), (9, 5), (9, 7), (2, 100), (2, 5), (2, 8)]


def lines(row, header=""):
    return header + "".join(row.format(user=user, item=item) + "\n" for user, item in PAIRS)


TEXTS = {
    "movielens-dat": ("ratings.dat", lines("{user}::{item}::4::978300760")),
    "movielens-tab": ("u.data", lines("{user}\t{item}\t4\t978300760")),
    "movielens-csv": ("ratings.csv", lines("{user},{item},4.0,978300760", "userId,movieId,rating,timestamp\n")),
    "recbole": ("x.inter", lines("{user}\t{item}\t4", "user_id:token\titem_id:token\trating:float\n")),
    "lightgcn": ("pairs.txt", "10 5 7 100\n9 5 7\n2 100 5 8\n"),
    "csv": ("x.csv", lines("{item},4,{user}", "item_id,rating,user_id\n")),
    "tsv": ("x.tsv", lines("{user}\t{item}", "user_id\titem_id\n")),
}


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text.encode())
    return path


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def all_pairs(data):
    users, items = data.user_ids.to_pylist(), data.item_ids.to_pylist()
    return sorted(
        (users[user], items[item])
        for pairs in (data.train, data.valid, data.test)
        for user, item in zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)
    )


def same(one, other):
    return all(
        np.array_equal(getattr(one, split).users, getattr(other, split).users)
        and np.array_equal(getattr(one, split).items, getattr(other, split).items)
        for split in ("train", "valid", "test")
    )


@pytest.mark.parametrize("format", TEXTS)
def test_every_text_format_is_sniffed_and_can_be_told(tmp_path, format):
    path = write(tmp_path, *TEXTS[format])
    sniffed, told, folder = read(path), read(path, format=format), None
    assert sniffed.user_ids.to_pylist() == [2, 9, 10]
    assert sniffed.item_ids.to_pylist() == [5, 7, 8, 100]
    assert all_pairs(sniffed) == sorted(PAIRS)
    assert same(sniffed, told)
    assert sniffed.notes == ()
    assert sniffed.split_seed == 0
    assert sniffed.source == str(path)
    assert sniffed.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    if format != "lightgcn":
        folder = read(tmp_path)
        assert same(sniffed, folder)


@pytest.mark.parametrize("format", ["movielens-dat", "movielens-tab", "recbole", "lightgcn", "tsv", "csv"])
def test_content_tells_the_format_under_any_name(tmp_path, format):
    path = write(tmp_path, "interactions.txt", TEXTS[format][1])
    assert all_pairs(read(path)) == sorted(PAIRS)


@pytest.mark.parametrize("format", TEXTS)
def test_windows_line_ends_byte_order_marks_and_blank_lines(tmp_path, format):
    name, text = TEXTS[format]
    mark = "" if format == "lightgcn" else "\ufeff"
    path = write(tmp_path, name, mark + "\r\n" + text.replace("\n", "\r\n") + "\r\n")
    assert all_pairs(read(path)) == sorted(PAIRS)


def test_parquet_keeps_numbers_and_text(tmp_path):
    users, items = zip(*PAIRS, strict=True)
    numbers = read(
        table(tmp_path / "n.parquet", user_id=pa.array(users, pa.int32()), item_id=pa.array(items, pa.uint16()))
    )
    texts = read(table(tmp_path / "t.parquet", user_id=[str(user) for user in users], item_id=list(map(str, items))))
    assert numbers.user_ids.type == numbers.item_ids.type == pa.int64()
    assert all_pairs(numbers) == sorted(PAIRS)
    assert texts.user_ids.to_pylist() == ["10", "2", "9"]


def test_parquet_dictionaries_and_whole_floats(tmp_path):
    path = table(
        tmp_path / "x.parquet",
        user_id=pa.array(["b", "b", "a", "a"]).dictionary_encode(),
        item_id=pa.array([1.0, 2.0, 1.0, 3.0]),
    )
    data = read(path)
    assert all_pairs(data) == [("a", 1), ("a", 3), ("b", 1), ("b", 2)]
    assert data.notes == ("The item ids are floats and are read as whole numbers.",)


def test_an_archive_is_read_like_a_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ml/ratings.dat", TEXTS["movielens-dat"][1])
        archive.writestr("ml/movies.dat", "5::Title::Drama\n")
        archive.writestr("__MACOSX/ml/ratings.dat", "x")
    data = read(tmp_path / "ml.zip")
    assert all_pairs(data) == sorted(PAIRS)
    assert data.name == "ml"


def test_a_uri_is_read_like_a_path(tmp_path):
    path = write(tmp_path, *TEXTS["csv"])
    assert same(read(path), read(path.as_uri()))


def test_named_columns(tmp_path):
    path = write(tmp_path, "x.csv", 'who,what,stars\n"a, b",x,1\n"a, b",y,5\nc,x,5\nc,z,4\n')
    data = read(path, user_column="who", item_column="what", rating_column="stars")
    assert all_pairs(data) == [("a, b", "x"), ("a, b", "y"), ("c", "x"), ("c", "z")]


def test_text_that_looks_like_numbers_keeps_its_zeros(tmp_path):
    path = write(tmp_path, "x.csv", "user_id,item_id\n007,1.0\n007,2.0\n8,1.0\n8,3.0\n")
    data = read(path)
    assert data.user_ids.to_pylist() == ["007", "8"]
    assert data.item_ids.to_pylist() == [1, 2, 3]
    assert data.notes == ("The item ids are written as decimals such as 1.0 and are read as whole numbers.",)


def test_one_odd_id_among_numbers_is_said(tmp_path):
    path = write(tmp_path, "x.csv", "user_id,item_id\n1,1\n1,2\n1,x\n1,3\n")
    assert read(path).notes == ("1 of 4 item ids are no whole numbers (such as 'x'), so all are read as text.",)


def test_numbers_beyond_64_bits_are_text(tmp_path):
    path = write(tmp_path, "x.csv", f"user_id,item_id\n{2**64},1\n{2**64},2\n")
    data = read(path)
    assert data.user_ids.to_pylist() == [str(2**64)]
    assert data.notes == ("The user ids hold numbers beyond 64 bits and are read as text.",)


@pytest.mark.parametrize("name", ["", "train.txt", "test.txt"])
def test_lightgcn_pair_by_folder_or_either_file(tmp_path, name):
    write(tmp_path, "train.txt", "0 1 2 3 4 5 6\n1 1 2 3\n7\n")
    write(tmp_path, "test.txt", "0 7 8\n1 9\n")
    data = read(tmp_path / name)
    assert (len(data.train), len(data.valid), len(data.test)) == (6, 3, 3)
    assert data.user_ids.to_pylist() == [0, 1]
    assert data.split_seed == 0
    assert data.notes == (
        "1 lines of train.txt name a user without any item.",
        "The input came as train and test without validation: 3 of 9 training pairs, a random third of each user's, "
        "became the validation part (split_seed=0); test is as given.",
    )
    assert {data.item_ids[int(item)].as_py() for item in data.test.items} == {7, 8, 9}
    assert data.sha256 == read(tmp_path).sha256


def test_lightgcn_set_with_validation_is_kept_as_it_is(tmp_path):
    write(tmp_path, "train.txt", "0 1 2\n")
    write(tmp_path, "valid.txt", "0 3\n")
    write(tmp_path, "test.txt", "0 4 5\n")
    data = read(tmp_path)
    assert [pairs.items.tolist() for pairs in (data.train, data.valid, data.test)] == [[0, 1], [2], [3, 4]]
    assert data.split_seed is None
    assert data.notes == ()


def split_text(delimiter=","):
    rows = ["u,1,train", "u,2,valid", "u,3,test", "v,1,train", "v,3,test"]
    return "\n".join(["user_id,item_id,split", *rows]).replace(",", delimiter) + "\n"


def test_a_split_column_is_kept(tmp_path):
    text = read(write(tmp_path, "x.csv", split_text()))
    parquet = read(
        table(
            tmp_path / "x.parquet",
            user_id=list("uuuvv"),
            item_id=[1, 2, 3, 1, 3],
            split=pa.array(["train", "valid", "test", "train", "test"]).dictionary_encode(),
        )
    )
    assert same(text, parquet)
    assert (len(text.train), len(text.valid), len(text.test)) == (2, 1, 2)
    assert text.split_seed is None


def test_pooled_splits_are_split_anew(tmp_path):
    path = write(tmp_path, "x.tsv", split_text("\t"))
    data = read(path, pool_splits=True)
    assert (len(data.train), len(data.valid), len(data.test)) == (3, 1, 1)
    assert data.split_seed == 0
    assert data.notes == ("The train and valid and test parts of the input are pooled and split anew.",)
    assert data.sha256 != read(path).sha256


def test_nothing_to_pool_is_said(tmp_path):
    data = read(write(tmp_path, *TEXTS["csv"]), pool_splits=True)
    assert data.notes == ("The input came without splits, so there was nothing to pool.",)


def test_pair_in_two_splits_may_be_pooled(tmp_path):
    path = write(tmp_path, "x.csv", split_text() + "u,1,test\n")
    assert read(path, pool_splits=True).notes[1:] == (
        "1 duplicate user-item pairs were merged: each pair is kept once.",
    )


def test_duplicates_are_kept_once_and_counted(tmp_path):
    name, text = TEXTS["movielens-dat"]
    data = read(write(tmp_path, name, text + "10::5::1::0\n10::5::2::0\n"))
    assert all_pairs(data) == sorted(PAIRS)
    assert data.notes == ("2 duplicate user-item pairs were merged: each pair is kept once.",)


@pytest.mark.parametrize("format", ["movielens-dat", "csv"])
def test_first_row_is_dropped_on_request(tmp_path, format):
    path = write(tmp_path, *TEXTS[format])
    data = read(path, drop_first_row=True)
    assert all_pairs(data) == sorted(PAIRS[1:])
    assert data.notes == ("The first row was dropped (drop_first_row), as the published loader does.",)
    assert data.sha256 != read(path).sha256


def test_min_rating_keeps_what_reaches_it_and_unused_ids_leave(tmp_path):
    path = write(tmp_path, "u.data", "1\t1\t4\t0\n1\t2\t5\t0\n1\t3\t3\t0\n2\t3\t1\t0\n")
    data = read(path, min_rating=4)
    assert all_pairs(data) == [(1, 1), (1, 2)]
    assert data.notes == ("2 rows with a rating below 4 were dropped (min_rating).",)
    assert data.item_ids.to_pylist() == [1, 2]


def test_min_interactions_drops_users_and_their_items(tmp_path):
    path = write(tmp_path, "x.txt", "1 1 2 3\n2 3\n3 9\n")
    data = read(path, min_interactions=2)
    assert data.user_ids.to_pylist() == [1]
    assert data.item_ids.to_pylist() == [1, 2, 3]
    assert data.notes == (
        "2 users with fewer than 2 interactions were dropped (min_interactions), with 2 interactions; "
        "1 items lost all of theirs and left too.",
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"split_seed": -1}, "split_seed is -1. Expected a whole number from 0."),
        ({"min_interactions": 0}, "min_interactions is 0. Expected a whole number from 1; 1 keeps every user."),
        ({"min_rating": float("nan")}, "min_rating is nan. Expected a finite number."),
    ],
)
def test_options_out_of_range(tmp_path, options, text):
    with pytest.raises(InputError) as error:
        read(write(tmp_path, *TEXTS["csv"]), **options)
    assert text in str(error.value)


ids = st.one_of(
    st.lists(st.integers(0, 2**62), min_size=4, max_size=12, unique=True),
    st.lists(st.text('abcäß漢," 0', min_size=1, max_size=6), min_size=4, max_size=12, unique=True),
)


@given(ids=ids, shuffle=st.randoms(use_true_random=False), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_ids_round_trip_and_row_order_does_not_matter(tmp_path_factory, ids, shuffle, seed):
    folder = tmp_path_factory.mktemp("rows")
    pairs = [
        (user, item) for place, user in enumerate(ids) for item in ids[place % 3 :] if item != ids[-1] or place == 0
    ]
    pairs += [(user, ids[0]) for user in ids if (user, ids[0]) not in pairs]
    pairs = [pair for pair in pairs if sum(pair[0] == other[0] for other in pairs) > 1]
    shuffled = shuffle.sample(pairs, len(pairs))
    one, other = (
        read(
            table(folder / f"{place}.parquet", user_id=[pair[0] for pair in rows], item_id=[pair[1] for pair in rows]),
            split_seed=seed,
        )
        for place, rows in enumerate((pairs, shuffled))
    )
    assert all_pairs(one) == sorted(set(pairs))
    assert same(one, other)
    assert one.user_ids.to_pylist() == sorted({user for user, _ in pairs})


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "options", "expected", "degrees"),
    [
        ("ml-1m", {}, ("ml-1m", 6040, 3706, 1_000_209), ("165.6", "269.9")),
        ("ml-1m", {"drop_first_row": True}, ("ml-1m", 6040, 3706, 1_000_208), ("165.6", "269.9")),
        ("ml-100k", {}, ("ml-100k", 943, 1682, 100_000), ("106.0", "59.5")),
        ("yelp2018", {}, ("yelp2018", 31_668, 38_048, 1_561_406), ("49.3", "41.0")),
        ("yelp2018", {"pool_splits": True}, ("yelp2018", 31_668, 38_048, 1_561_406), ("49.3", "41.0")),
    ],
)
def test_real_counts(data_folder, folder, options, expected, degrees):
    data = read(data_folder / folder, **options)
    counts = data.counts()
    assert (data.name, counts["users"], counts["items"], counts["interactions"]) == expected
    assert (f"{counts['user_degree']['mean']:.1f}", f"{counts['item_degree']['mean']:.1f}") == degrees
    if folder == "yelp2018" and not options:
        assert counts["test"] == 324_147
    assert counts["train"] / counts["interactions"] == pytest.approx(0.5, abs=0.03)


@pytest.mark.data
def test_missing_ratings_of_ml_1m_are_refused_under_min_rating(data_folder):
    with pytest.raises(InputError, match="259 of 1,000,209 rows have no rating, so min_rating=4 cannot judge them"):
        read(data_folder / "ml-1m", min_rating=4)
