from pathlib import Path

import numpy as np
import pytest

from ciess.config.data import DataConfig
from ciess.data import planted, read
from ciess.data.source import read_source
from ciess.errors import DataError, InputError


def test_a_path_is_read_with_its_options(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("who,item_id\n" + "".join(f"{user},{item}\n" for user in range(6) for item in range(8)))
    found = read_source(str(path), DataConfig(user_column="who", split_seed=3))
    expected = read(str(path), user_column="who", split_seed=3)
    assert (found.sha256, found.split_seed) == (expected.sha256, 3)
    np.testing.assert_array_equal(found.train.items, expected.train.items)


def test_planted_is_the_embedded_set_of_a_split() -> None:
    found, expected = read_source("planted", DataConfig(split_seed=2)), planted(split_seed=2).data
    assert found.sha256 == expected.sha256
    np.testing.assert_array_equal(found.valid.items, expected.valid.items)


def test_a_file_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("planted").write_text("".join(f"{user} 1 2 3 4\n" for user in range(5)))
    assert read_source("planted", DataConfig(format="lightgcn")).n_users == 5


@pytest.mark.parametrize("options", [{"min_rating": 3}, {"format": "csv"}, {"user_column": "who"}])
def test_the_embedded_set_takes_no_reading_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        read_source("planted", DataConfig.model_validate(options))
    assert str(caught.value) == (
        "The embedded planted data takes no reading options but --split-seed; some were given. Leave them out."
    )


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(DataError, match=r"^nowhere\.csv does not exist\."):
        read_source("nowhere.csv", DataConfig())
