"""Users without a row, and users never seen: served by their history."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess import load, masks
from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import InputError
from ciess.masks.mask import PrefixMask
from ciess.models.history import build_graph
from ciess.storage.storage import Storage
from ciess.tables.protocol import train_table
from ciess.tables.spec import TableSpec
from ciess.tables.table import CompressedTable


@pytest.fixture(scope="module")
def served(planted: Planted, tmp_path_factory: pytest.TempPathFactory):
    """served(backbone): a saved table that has no rows of users, read again."""
    made: dict[str, CompressedTable] = {}

    def make(backbone: str) -> CompressedTable:
        if backbone not in made:
            data, folder = planted.data, tmp_path_factory.mktemp("tables")
            sizes = np.repeat([0, 8], [data.n_users, data.n_items]).astype(np.int16)
            config = FitConfig(backbone=backbone, max_size=16, threads=1, device="cpu", gentle={"max_epochs": 2})
            spec = TableSpec("sized", PrefixMask(sizes, 16), 0, masks.exact(0.5))
            train_table(data, spec, config, Storage(folder), refit=False)
            made[backbone] = load(folder / "tables" / spec.name)
        return made[backbone]

    return make


def names(table: CompressedTable, codes: Any) -> list[Any]:
    return [table.item_ids[int(code)].as_py() for code in codes]


@pytest.mark.parametrize("backbone", ["lightgcn", "items"])
def test_a_user_without_a_row_is_served_by_its_history(planted: Planted, served, backbone: str) -> None:
    """Its vector is that of its training items, and ranks better than popularity."""
    table, data = served(backbone), planted.data
    assert (table.users([data.user_ids[3].as_py()]) == 0).all()
    user = data.user_ids[3].as_py()
    history = names(table, table.graph_pairs.items[table.graph_pairs.users == 3])
    known = table.recommend(user, k=table.n_items, include_seen=True)
    given = table.recommend(history=history, k=table.n_items, include_seen=True)
    assert given.items[:15] == known.items[:15]
    np.testing.assert_allclose(given.scores, known.scores, rtol=1e-3, atol=1e-5 * np.abs(known.scores).max())


@pytest.mark.parametrize("backbone", ["lightgcn", "items"])
def test_a_user_never_seen_is_served_as_one_more_user_would_be(planted: Planted, served, backbone: str) -> None:
    """By hand: a graph with one more row, whose edges change no other row's degree."""
    table, data = served(backbone), planted.data
    codes = np.array([2, 11, 30, 41])
    found = table.recommend(history=names(table, codes), k=5)
    assert not set(found.items) & set(names(table, codes))
    degrees = np.maximum(data.degrees(), 1)
    rows = torch.from_numpy(table.to_dense()).double()
    weights = {name: torch.from_numpy(value).double() for name, value in table.weights.items()}
    items = rows[data.n_users :]
    if backbone == "items":
        vector = (weights["history_weight"][codes, None] * items[codes]).sum(0) / 2
        vectors = weights["item_weight"][:, None] * items
    else:
        graph = build_graph(data.train, data.n_users, data.n_items, "symmetric")
        layers = [rows.float()]
        for _ in range(3):
            layers.append(graph.multiply(layers[-1]))
        lower = (sum(layers[:3]) / 4).double()[data.n_users :]
        vector = (lower[codes] * torch.from_numpy(degrees[data.n_users :][codes] ** -0.5)[:, None]).sum(0) / 2
        vectors = (sum(layers) / 4).double()[data.n_users :]
    scores = (vectors @ vector).numpy()
    scores[codes] = -np.inf
    expected = np.argsort(-scores, kind="stable")[:5]
    assert found.items == names(table, expected)
    np.testing.assert_allclose(found.scores, scores[expected], rtol=1e-4)


def test_an_item_of_the_history_counts_once(planted: Planted, served) -> None:
    table = served("items")
    first, second = names(table, [2, 11]), names(table, [11, 2, 2, 11])
    assert table.recommend(history=first).items == table.recommend(history=second).items


def test_what_cannot_be_served_is_refused(planted: Planted, served, small_config, tmp_path: Path) -> None:
    table, data = served("lightgcn"), planted.data
    with pytest.raises(InputError, match=r"Found neither a user nor a history\. Expected one of the two"):
        table.recommend()
    with pytest.raises(InputError, match="Found both a user and a history"):
        table.recommend(data.user_ids[0].as_py(), history=names(table, [1]))
    with pytest.raises(InputError, match="The history is empty, but one item or more was expected"):
        table.recommend(history=[])
    with pytest.raises(InputError, match="The item 'nowhere' is not in the table"):
        table.recommend(history=["nowhere"])
    spec = TableSpec("equal", masks.equal(data.n, 16, 0.5), 0, masks.exact(0.5))
    train_table(data, spec, small_config("ncf", max_epochs=1), Storage(tmp_path), refit=False)
    tower = load(tmp_path / "tables" / spec.name)
    with pytest.raises(InputError, match=r"of ncf, which has no vector for a user outside.*lightgcn or items"):
        tower.recommend(history=names(table, [1]))


def test_the_command_takes_a_history(planted: Planted, served, tmp_path: Path, ciess) -> None:
    table = served("items")
    table.save(tmp_path / "table")
    history = [str(name) for name in names(table, [2, 11])]
    status, out, err = ciess("recommend", tmp_path / "table", "--history", *history, "-k", "3")
    assert (status, err) == (0, "")
    expected = table.recommend(history=history, k=3)
    assert [line.split()[1] for line in out.splitlines()] == [str(item) for item in expected.items]


def test_items_store_two_numbers_an_item_beside_the_rows(planted: Planted, served) -> None:
    table, data = served("items"), planted.data
    assert {name: value.shape for name, value in table.weights.items()} == {
        "history_weight": (data.n_items,),
        "item_weight": (data.n_items,),
    }
    assert table.card["bytes"]["dense_parameters"] == 8 * data.n_items
    assert table.card["kept_parameters"] == 8 * data.n_items
    assert isinstance(data, Interactions)
