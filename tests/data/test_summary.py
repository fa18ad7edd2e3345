import pytest

from ciess.data import describe, planted, read
from ciess.data.published import KNOWN_SETS, recognise


def test_known_sets_are_recognised_by_all_three_counts():
    assert recognise(6040, 3706, 1_000_209) == "ml-1m"
    assert recognise(6040, 3706, 1_000_208) is None
    assert all(counts.items for known in KNOWN_SETS.values() for counts in known.published)


def test_description_of_a_file_with_notes(tmp_path):
    path = tmp_path / "small.txt"
    path.write_text("1 1 2 3 4\n2 1 2 3 4\n2 1\n")
    text = describe(read(path))
    assert text.splitlines()[0] == f"small ({path})"
    for line in (
        "  users                    2",
        "  items                    4",
        "  interactions             8",
        "  density          100.0000%",
        "  user degree               4        4.0          4",
        "  item degree               2        2.0          2",
        "  train                    4   50.0%",
        "  split         random per user, split_seed=0",
        "  note: 1 duplicate user-item pairs were merged: each pair is kept once.",
    ):
        assert line in text.splitlines()
    assert "paper" not in text


def test_description_of_split_input(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("user_id,item_id,split\n1,1,train\n1,2,valid\n1,3,test\n")
    assert "  split         as the input gives it" in describe(read(path)).splitlines()


def test_description_of_planted_data():
    assert describe(planted().data).startswith("planted (planted)\n  users                  600\n")


@pytest.mark.data
def test_published_counts_stand_beside_ours(data_folder):
    text = describe(read(data_folder / "ml-1m", drop_first_row=True))
    assert "  here                      6,040      3,706      1,000,208" in text
    assert "  paper 3.2                 6,040      3,952      1,000,208" in text
    assert "paper 3.2 differs: 3,952 is the largest movie id, and 3,706 movies have a rating" in text
    assert "The released files hold 6,040 users, 3,706 items and 1,000,209 interactions" in text
    text = describe(read(data_folder / "yelp2018", pool_splits=True))
    assert "  paper 3.2                31,668     38,048      1,561,147" in text
    assert "why the paper has 259 fewer is unknown" in text
    text = describe(read(data_folder / "ml-100k"))
    assert "differs" not in text
    assert "  release README              943      1,682        100,000" in text
