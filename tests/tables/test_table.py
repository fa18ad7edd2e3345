from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess.data import Interactions
from ciess.devices import cpu_threads
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.models.ncf import NCF
from ciess.tables.card import CARD
from ciess.tables.table import CompressedTable, load
from ciess.training.fit import fit
from ciess.training.loop import FitRequest

MAX_SIZE = 16
FILES = ["edges.parquet", "ids.parquet", "model.safetensors", "weights.safetensors"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with cpu_threads(1):
        yield


class TestRoundTrip:
    def test_scores_are_the_trained_models_to_the_bit(
        self, trained: Any, backbone: str, kind: str, tmp_path: Path
    ) -> None:
        table, result, _ = trained(backbone, kind)
        table.save(tmp_path)
        loaded, users = load(tmp_path), np.arange(table.n_users)
        expected = result.recommender.score_users(torch.from_numpy(users)).numpy()
        assert expected.std() > 0
        np.testing.assert_array_equal(loaded.scores(users), expected)
        np.testing.assert_array_equal(loaded.scores([7]), result.recommender.score_users(torch.tensor([7])).numpy())
        np.testing.assert_array_equal(loaded.vectors(), result.recommender.encoded.numpy())

    def test_threads_are_those_of_the_fit_whatever_is_set_around(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        for name in ("encode", "score_all"):
            method = getattr(NCF, name)

            def spy(*arguments: Any, method: Any = method) -> Any:
                seen.append(torch.get_num_threads())
                return method(*arguments)

            monkeypatch.setattr(NCF, name, spy)
        with cpu_threads(2):
            table = load(folder)
            table.scores([0])
            table.recommend(100)
            table.recommend_many([100])
            load(folder).vectors()
            assert torch.get_num_threads() == 2
        assert seen == [1, 1, 1, 1, 1]

    def test_everything_comes_back(self, trained: Any, backbone: str, kind: str, tmp_path: Path) -> None:
        table, _, mask = trained(backbone, kind)
        table.save(tmp_path)
        loaded = load(tmp_path)
        assert loaded.config == table.config
        assert loaded.card == table.card
        assert loaded.user_ids.equals(table.user_ids)
        assert loaded.item_ids.equals(table.item_ids)
        assert type(loaded.mask) is type(mask)
        np.testing.assert_array_equal(loaded.mask.dense(), mask.dense())
        np.testing.assert_array_equal(loaded.values, table.values)
        assert loaded.weights.keys() == table.weights.keys()
        for part in ("graph_pairs", "known_pairs"):
            np.testing.assert_array_equal(getattr(loaded, part).users, getattr(table, part).users)
            np.testing.assert_array_equal(getattr(loaded, part).items, getattr(table, part).items)

    def test_saving_again_writes_the_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        load(folder).save(tmp_path / "again")
        for name in [*FILES, CARD]:
            assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()

    def test_another_table_takes_the_place_of_an_old_one(self, trained: Any, folder: Path) -> None:
        table = trained("lightgcn", "sparse")[0]
        table.save(folder)
        np.testing.assert_array_equal(load(folder).to_dense(), table.to_dense())
        assert load(folder).weights == {}

    def test_the_graph_is_what_was_trained_on_and_known_is_all(self, trained: Any, data: Interactions) -> None:
        table = trained("lightgcn", "prefix")[0]
        assert len(table.graph_pairs) == len(data.train) + len(data.valid)
        assert len(table.known_pairs) == len(table.graph_pairs) + len(data.test)

    def test_a_table_that_keeps_nothing(self, data: Interactions, small_config: Any, tmp_path: Path) -> None:
        mask, config = PrefixMask(np.zeros(data.n, np.int16), MAX_SIZE), small_config("ncf", max_size=MAX_SIZE)
        result = fit(data, FitRequest(config, mask, seed=0, epochs=1, evaluate=False))
        CompressedTable.from_fit(data, data, config, mask, result, {}).save(tmp_path)
        known = np.concatenate([part.items[part.users == 0] for part in (data.train, data.valid, data.test)])
        left = [name for code, name in enumerate(data.item_ids.to_pylist()) if code not in known]
        assert load(tmp_path).recommend(100, k=5).items == left[:5]


class TestTable:
    def test_what_is_not_kept_is_zero_and_the_rest_is_the_fits(self, trained: Any, backbone: str, kind: str) -> None:
        table, result, mask = trained(backbone, kind)
        tables, width = result.recommender.backbone.tables, mask.width
        dense = table.to_dense()
        assert dense.dtype == np.float32
        assert dense.shape == (table.n, tables * MAX_SIZE)
        kept = mask.dense() if kind == "sparse" else np.tile(mask.dense(), (1, tables))
        assert not dense[~kept].any()
        assert dense[kept].all()
        parts = dense.reshape(table.n, tables, MAX_SIZE)[:, :, :width].reshape(table.n, tables * width)
        np.testing.assert_array_equal(parts, result.table)

    def test_csr_is_dense(self, trained: Any, backbone: str, kind: str, empty_row: int) -> None:
        table = trained(backbone, kind)[0]
        csr = table.to_csr()
        assert csr.nnz == len(table.values)
        np.testing.assert_array_equal(csr.toarray(), table.to_dense())
        assert np.diff(csr.indptr)[empty_row] == 0

    def test_rows_by_id(self, trained: Any, backbone: str, kind: str) -> None:
        table, dense = trained(backbone, kind)[0], trained(backbone, kind)[0].to_dense()
        names = table.item_ids.to_pylist()
        np.testing.assert_array_equal(table.users([107, "100"]), dense[[1, 0]])
        np.testing.assert_array_equal(table.items([names[4], names[0]]), dense[[table.n_users + 4, table.n_users]])

    def test_a_mask_of_one_table_holds_for_both_of_ncf(
        self, data: Interactions, small_config: Any, tmp_path: Path
    ) -> None:
        kept = np.random.default_rng(0).random((data.n, MAX_SIZE)) < 0.3
        mask, config = SparseMask.from_dense(kept, MAX_SIZE), small_config("ncf", max_size=MAX_SIZE)
        result = fit(data, FitRequest(config, mask, seed=0, epochs=1, evaluate=False))
        CompressedTable.from_fit(data, data, config, mask, result, {}).save(tmp_path)
        loaded = load(tmp_path)
        np.testing.assert_array_equal(loaded.to_dense() != 0, np.tile(kept, (1, 2)))
        np.testing.assert_array_equal(loaded.scores([0]), result.recommender.score_users(torch.tensor([0])).numpy())
        assert loaded.card["kept_parameters"] == 2 * kept.sum()
