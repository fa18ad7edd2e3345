import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load as load_tensors

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.data.planted import planted as make_planted
from ciess.devices import cpu_threads
from ciess.errors import ArtifactError, InputError, RunDirectoryError
from ciess.masks.budget import sparsity
from ciess.masks.mask import Mask, PrefixMask, SparseMask
from ciess.models import BACKBONES
from ciess.models.ncf import NCF
from ciess.provenance import versions
from ciess.storage.storage import Storage
from ciess.tables.card import CARD, content_sha256
from ciess.tables.serving import rank
from ciess.tables.table import CompressedTable, load
from ciess.training.fit import FitResult, fit
from ciess.training.loop import FitRequest

MAX_SIZE = 16
EMPTY_ROW = 3
FILES = ["edges.parquet", "ids.parquet", "model.safetensors", "weights.safetensors"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with cpu_threads(1):
        yield


@pytest.fixture(scope="module")
def data() -> Interactions:
    """48 users with whole numbers as ids, fewer than 40 items with names."""
    made = make_planted(1, n_users=48, n_items=40, interactions_per_user=14).data
    names = pa.array([f"film-{number:02d}" for number in made.item_ids.to_pylist()])
    return dataclasses.replace(made, user_ids=pa.array(np.arange(48) * 7 + 100), item_ids=names)


Trained = tuple[CompressedTable, FitResult, Mask]


@pytest.fixture(scope="module")
def trained(data: Interactions, small_config: Callable[..., RecommenderConfig]) -> Callable[[str, str], Trained]:
    """trained(backbone, kind of mask): a refit of two epochs, one row of which keeps nothing, and its table."""

    @cache
    def make(backbone: str, kind: str) -> Trained:
        generator, tables = np.random.default_rng(5), 2 if backbone == "ncf" else 1
        mask: Mask
        if kind == "prefix":
            sizes = generator.integers(1, 12, data.n).astype(np.int16)
            sizes[EMPTY_ROW] = 0
            mask = PrefixMask(sizes, MAX_SIZE)
        else:
            kept = generator.random((data.n, tables * MAX_SIZE)) < 0.2
            kept[EMPTY_ROW] = False
            mask = SparseMask.from_dense(kept, MAX_SIZE)
        config, trained_on = small_config(backbone, max_size=MAX_SIZE), data.merged()
        result = fit(trained_on, FitRequest(config, mask, seed=3, epochs=2, evaluate=False))
        card = {"method": "equal", "target_sparsity": 0.9, "seed": 3, "test": {"Recall@20": 0.1 + 0.2}}
        return CompressedTable.from_fit(data, trained_on, config, mask, result, card), result, mask

    return make


@pytest.fixture(params=["prefix", "sparse"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(BACKBONES))
def backbone(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(trained: Callable[[str, str], Trained], tmp_path: Path) -> Path:
    """A saved NCF table, which has something in each of its files."""
    trained("ncf", "prefix")[0].save(tmp_path / "table")
    return tmp_path / "table"


def card_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / CARD).read_text()))


def write_card(folder: Path, card: dict[str, Any]) -> None:
    (folder / CARD).write_text(json.dumps(card | {"card_sha256": content_sha256(card)}))


def header_bytes(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


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

    def test_csr_is_dense(self, trained: Any, backbone: str, kind: str) -> None:
        table = trained(backbone, kind)[0]
        csr = table.to_csr()
        assert csr.nnz == len(table.values)
        np.testing.assert_array_equal(csr.toarray(), table.to_dense())
        assert np.diff(csr.indptr)[EMPTY_ROW] == 0

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


class TestBytes:
    def test_a_prefix_table_is_4_bytes_a_value_and_2_a_row(self, trained: Any, backbone: str, tmp_path: Path) -> None:
        table, _, mask = trained(backbone, "prefix")
        table.save(tmp_path)
        path = tmp_path / "weights.safetensors"
        kept = int(mask.sizes.sum()) * (2 if backbone == "ncf" else 1)
        assert path.stat().st_size == 4 * kept + 2 * table.n + header_bytes(path)
        assert card_of(tmp_path)["bytes"]["table"] == 4 * kept + 2 * table.n
        assert card_of(tmp_path)["files"]["weights.safetensors"]["bytes"] == path.stat().st_size

    def test_a_sparse_table_is_5_bytes_a_value_and_4_a_row(self, trained: Any, backbone: str, tmp_path: Path) -> None:
        table, _, mask = trained(backbone, "sparse")
        table.save(tmp_path)
        path = tmp_path / "weights.safetensors"
        assert path.stat().st_size == 5 * mask.kept + 4 * (table.n + 1) + header_bytes(path)
        assert card_of(tmp_path)["bytes"]["table"] == 5 * mask.kept + 4 * (table.n + 1)

    def test_columns_above_256_take_2_bytes(self, data: Interactions, small_config: Any, tmp_path: Path) -> None:
        kept = np.zeros((data.n, 2 * 160), np.bool_)
        kept[:, [0, 159, 160, 319]] = True
        mask, config = SparseMask.from_dense(kept, 160), small_config("ncf", max_size=160)
        result = fit(data, FitRequest(config, mask, seed=0, epochs=1, evaluate=False))
        CompressedTable.from_fit(data, data, config, mask, result, {}).save(tmp_path)
        content = (tmp_path / "weights.safetensors").read_bytes()
        assert load_tensors(content)["columns"].dtype == np.int16
        np.testing.assert_array_equal(load(tmp_path).to_dense() != 0, kept)

    def test_the_card_states_each_cost_apart(self, trained: Any, backbone: str) -> None:
        table, result, _ = trained(backbone, "prefix")
        found, n = table.card["bytes"], table.n
        # NGCF: two matrices and two biases a layer. NCF: halves of the first layer, its bias, one layer, two outputs.
        ngcf = 4 * 2 * (MAX_SIZE * 12 + 2 * 12 * 12 + 3 * 12)
        scoring = 4 * (16 * 8 + 8 + MAX_SIZE + 8)
        ncf = 4 * (2 * MAX_SIZE * 16 + 16) + scoring
        assert found["dense_parameters"] == {"lightgcn": 0, "ngcf": ngcf, "ncf": ncf}[backbone]
        assert found["edges"] == (0 if backbone == "ncf" else 8 * len(table.graph_pairs))
        assert found["known_pairs"] == 8 * len(table.known_pairs)
        vectors = 4 * n * result.recommender.encoded.shape[1]
        assert found["serving"] == vectors + (scoring if backbone == "ncf" else 0)
        assert found["full_table"] == 4 * n * MAX_SIZE * (2 if backbone == "ncf" else 1)


class TestCard:
    def test_counts_come_from_the_mask(self, trained: Any, backbone: str, kind: str) -> None:
        table, _, mask = trained(backbone, kind)
        card = table.card
        assert card["kept_parameters"] == len(table.values)
        assert card["kept_share"] == f"{len(table.values)}/{card['full_parameters']}"
        assert 1 - Fraction(card["kept_share"]) == sparsity(mask)
        assert card["sparsity"] == float(sparsity(mask))

    def test_it_says_where_the_table_comes_from(self, folder: Path, data: Interactions, trained: Any) -> None:
        card = card_of(folder)
        assert card["format"] == 1
        assert card["dataset"] == "planted"
        assert card["data_sha256"] == data.sha256
        assert card["split_seed"] == 0
        assert RecommenderConfig(**card["config"]) == trained("ncf", "prefix")[0].config
        assert (card["method"], card["seed"], card["test"]) == ("equal", 3, {"Recall@20": 0.1 + 0.2})
        assert card["versions"] == versions()
        assert set(versions()) >= {"python", "torch", "numpy", "pyarrow", "safetensors", "ciess"}
        assert all(version[0].isdigit() for version in versions().values())

    def test_what_is_counted_cannot_be_claimed(self, data: Interactions, trained: Any) -> None:
        table, result, mask = trained("lightgcn", "prefix")
        with pytest.raises(ArtifactError, match=r"^The card was given sparsity, but ciess states these itself\. Leave"):
            CompressedTable.from_fit(data, data.merged(), table.config, mask, result, {"sparsity": 0.9})


class TestRecommend:
    def test_known_items_are_left_out_and_the_best_come_first(self, trained: Any, backbone: str, kind: str) -> None:
        table = trained(backbone, kind)[0]
        names, indptr = table.item_ids.to_pylist(), table.known_pairs.indptr(table.n_users)
        for code in (0, EMPTY_ROW, 47):
            known = set(table.known_pairs.items[indptr[code] : indptr[code + 1]].tolist())
            scores = table.scores([code])[0]
            by_hand = sorted(
                (item for item in range(table.n_items) if item not in known), key=lambda i: (-scores[i], i)
            )
            found = table.recommend(100 + 7 * code, k=8)
            assert found.items == [names[item] for item in by_hand[:8]]
            np.testing.assert_array_equal(found.scores, scores[by_hand[:8]])
            assert found.scores.dtype == np.float32

    def test_held_out_items_are_known_too(self, trained: Any, data: Interactions) -> None:
        table = trained("lightgcn", "prefix")[0]
        for part in (data.train, data.valid, data.test):
            own = {table.item_ids[item].as_py() for item in part.items[part.users == 5].tolist()}
            assert own
            assert not own & set(table.recommend(135, k=1000).items)
            assert own <= set(table.recommend(135, k=1000, include_seen=True).items)

    def test_fewer_come_where_fewer_are_left(self, trained: Any) -> None:
        table = trained("lightgcn", "prefix")[0]
        known = int(np.sum(table.known_pairs.users == 0))
        assert len(table.recommend(100, k=1000).items) == table.n_items - known
        assert len(table.recommend(100, k=1000).scores) == table.n_items - known
        assert len(table.recommend(100, k=1000, include_seen=True).items) == table.n_items

    def test_ids_keep_their_type(self, trained: Any, data: Interactions) -> None:
        table = trained("lightgcn", "prefix")[0]
        swapped = dataclasses.replace(
            table, user_ids=table.user_ids.cast(pa.string()), item_ids=pa.array(range(data.n_items))
        )
        names = table.item_ids.to_pylist()
        assert all(type(item) is str for item in table.recommend(100).items)
        assert all(type(item) is int for item in swapped.recommend("100").items)
        assert [names[item] for item in swapped.recommend(100).items] == table.recommend("100").items
        assert table.recommend_many([100]).schema.field("user_id").type == pa.int64()
        assert swapped.recommend_many([100]).schema.field("user_id").type == pa.string()

    @pytest.mark.parametrize("include_seen", [False, True])
    def test_many_are_one_after_the_other(
        self, trained: Any, backbone: str, kind: str, include_seen: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = trained(backbone, kind)[0]
        # Blocks of 5 users, so that most lists come from a block that is not the first.
        size = 5 * 4 * table.n_items * (16 if backbone == "ncf" else 1)
        monkeypatch.setattr("ciess.tables.serving.BLOCK_BYTES", {"cpu": size})
        many = table.recommend_many(k=table.n_items, include_seen=include_seen)
        assert many.column_names == ["user_id", "rank", "item_id", "score"]
        rows = many.to_pylist()
        for code in range(0, table.n_users, 5):
            user = 100 + 7 * code
            mine, single = [row for row in rows if row["user_id"] == user], table.recommend(user, 1000, include_seen)
            assert [row["rank"] for row in mine] == list(range(1, len(mine) + 1))
            scores = [row["score"] for row in mine]
            np.testing.assert_allclose(scores, single.scores, rtol=1e-4, atol=1e-6)
            # Sums depend on the rows of a block, so items with next to equal scores may change places.
            assert {row["item_id"] for row in mine} == set(single.items)
            by_item = dict(zip(single.items, single.scores, strict=True))
            np.testing.assert_allclose(scores, [by_item[row["item_id"]] for row in mine], rtol=1e-4, atol=1e-6)
        assert len(rows) == table.n_users * table.n_items - (0 if include_seen else len(table.known_pairs))

    def test_many_keeps_the_order_given(self, trained: Any) -> None:
        table = trained("lightgcn", "prefix")[0]
        for users in ([107, "100", 107], pa.array([107, 100, 107]), np.array(["107", "100", "107"])):
            many = table.recommend_many(users, k=2)
            assert many["user_id"].to_pylist() == [107, 107, 100, 100, 107, 107]
            assert many["rank"].to_pylist() == [1, 2] * 3
        assert table.recommend_many([], k=2).num_rows == 0

    def test_blocks_are_sized_to_memory(self) -> None:
        blocks: list[int] = []

        def score(users: torch.Tensor) -> torch.Tensor:
            blocks.append(len(users))
            return torch.zeros(len(users), 4096)

        items, _ = rank(score, np.arange(1000), 3, 4096, torch.device("cpu"), floats_per_score=2)
        assert sum(blocks) == 1000
        assert max(blocks) * 4096 * 2 * 4 <= 4 << 20
        np.testing.assert_array_equal(items, np.tile([0, 1, 2], (1000, 1)))


class TestBadInput:
    @pytest.mark.parametrize("unknown", [101, "101", "nobody", "", "1e2", 2**70, -100, 100.0])
    def test_an_unknown_user(self, trained: Any, unknown: Any) -> None:
        table = trained("lightgcn", "prefix")[0]
        with pytest.raises(InputError) as error:
            table.recommend(unknown)
        assert str(error.value) == (
            f"The user '{unknown}' is not in the table. Expected the id of one of its 48 users, such as 100, 107, 114. "
            "Give an id as it stands in the data that the table was trained on; a user without interactions has no row."
        )

    @pytest.mark.parametrize("written", [100, "100", " 100 ", "+100", "0100", np.int64(100)])
    def test_a_number_is_found_however_it_is_written(self, trained: Any, written: Any) -> None:
        table = trained("lightgcn", "prefix")[0]
        assert table.recommend(written).items == table.recommend(100).items

    def test_unknown_ones_among_many(self, trained: Any) -> None:
        table = trained("lightgcn", "prefix")[0]
        with pytest.raises(
            InputError, match=r"^The user 'x' is not in the table \(2 of the 4 asked for are not\)\. Expected"
        ):
            table.recommend_many([100, "x", 107, 1])
        with pytest.raises(
            InputError, match=r"^The item 'film' is not .* of its \d+ items, such as 'film-00', 'film-01'"
        ):
            table.items(["film"])

    @pytest.mark.parametrize("k", [0, -3])
    def test_k_below_one(self, trained: Any, k: int) -> None:
        table = trained("lightgcn", "prefix")[0]
        message = rf"^k is {k}, but the number of items to recommend must be 1 or more\. Choose such a k\.$"
        with pytest.raises(InputError, match=message):
            table.recommend(100, k=k)
        with pytest.raises(InputError, match=message):
            table.recommend_many(k=k)

    @pytest.mark.parametrize("name", FILES)
    def test_a_changed_byte(self, folder: Path, name: str) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(ArtifactError) as error:
            load(folder)
        assert str(error.value) == (
            f"{folder / name} is not as it was saved: its content does not have the sha256 that card.json holds for "
            "it, so a byte has changed. Copy the folder again from where it was saved, or save the table again."
        )

    @pytest.mark.parametrize(
        ("old", "new"),
        [('"seed": 3', '"seed": 4'), ('"format": 1', '"formal": 1'), ("{", "("), ('"format": 1', '"format": 0')],
    )
    def test_a_changed_byte_in_the_card(self, folder: Path, old: str, new: str) -> None:
        text = (folder / CARD).read_text()
        assert old in text
        (folder / CARD).write_text(text.replace(old, new, 1))
        with pytest.raises(ArtifactError, match=r"card\.json is not as it was saved: .* a byte has changed\. Copy the"):
            load(folder)

    @pytest.mark.parametrize("content", [b"", b"[]", b"3", b"null", b"\xff\xfe", b"{}"])
    def test_a_card_that_is_none(self, folder: Path, content: bytes) -> None:
        (folder / CARD).write_bytes(content)
        with pytest.raises(ArtifactError, match=r"card\.json is not as it was saved"):
            load(folder)

    def test_a_card_may_be_laid_out_anew(self, folder: Path) -> None:
        (folder / CARD).write_text(json.dumps(card_of(folder), sort_keys=True))
        assert load(folder).n_users == 48

    def test_a_newer_format(self, folder: Path) -> None:
        (folder / CARD).write_text(json.dumps({"format": 2, "versions": {"ciess": "9.1"}}))
        with pytest.raises(ArtifactError) as error:
            load(folder)
        assert str(error.value) == (
            f"{folder / CARD} is of format 2, but this version of ciess ({versions()['ciess']}) understands formats up "
            "to 1. Upgrade ciess, for instance to the version that saved the table: 9.1."
        )

    def test_a_setting_of_another_version(self, folder: Path) -> None:
        card = card_of(folder)
        card["config"]["model"]["attention"] = True
        write_card(folder, card)
        with pytest.raises(ArtifactError) as error:
            load(folder)
        assert str(error.value).startswith(f"The config in {folder / CARD} is not one of ciess {versions()['ciess']}: ")
        assert "attention: Extra inputs are not permitted" in str(error.value)
        assert str(error.value).endswith(f"saved by ciess {versions()['ciess']}: install that version to read it.")

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(ArtifactError) as error:
            load(folder)
        assert str(error.value) == (
            f"{folder / name} is missing, but the card.json beside it lists it. Copy the whole folder again from where "
            "it was saved, or save the table again."
        )

    def test_a_device_that_is_none(self, folder: Path) -> None:
        assert load(folder, device="auto").recommend(100, k=1).items
        with pytest.raises(InputError, match=r"^The device is 'tpx', but auto, cpu, cuda or cuda:N was expected"):
            load(folder, device="tpx")

    def test_no_table(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError) as error:
            load(tmp_path / "nothing")
        assert str(error.value) == (
            f"{tmp_path / 'nothing'} holds no card.json, but a saved table was expected: its card is written last. "
            "Give the folder of a table, such as runs/a/tables/equal-c90-s0; if this is one, its saving was cut short: "
            "save it again."
        )

    @pytest.mark.parametrize("last", [*FILES, CARD])
    @pytest.mark.parametrize("over_another", [False, True])
    def test_a_save_that_was_cut_short_does_not_load(
        self, trained: Any, folder: Path, tmp_path: Path, last: str, over_another: bool
    ) -> None:
        class Full(Storage):
            def write_bytes(self, name: str, content: bytes) -> None:
                if name == last:
                    raise RunDirectoryError("no space")
                super().write_bytes(name, content)

        if not over_another:
            shutil.rmtree(folder)
        with pytest.raises(RunDirectoryError, match="no space"):
            trained("ngcf", "sparse")[0].save(Full(folder))
        with pytest.raises(ArtifactError, match=r"holds no card\.json"):
            load(folder)

    def test_parts_that_do_not_fit(self, trained: Any, data: Interactions) -> None:
        table, result, mask = trained("ngcf", "prefix")
        merged, wider = data.merged(), PrefixMask(np.full(data.n, MAX_SIZE, np.int16), MAX_SIZE)
        narrower = PrefixMask(np.where(np.arange(data.n) == np.argmax(mask.sizes), mask.sizes, 1), MAX_SIZE)
        with pytest.raises(
            ArtifactError, match=r"^The table of the fit has the shape .* asks for \(\d+, 16\)\. Give the mask"
        ):
            CompressedTable.from_fit(data, merged, table.config, wider, result, {})
        with pytest.raises(
            ArtifactError, match=r" values that are not zero where its mask keeps none; none .* Give the mask"
        ):
            CompressedTable.from_fit(data, merged, table.config, narrower, result, {})
        with pytest.raises(
            ArtifactError, match=r"^The parameters of the ngcf have the shapes {}, but .* from one fit and"
        ):
            dataclasses.replace(table, weights={})
        with pytest.raises(
            ArtifactError, match=r"^Found a mask of \d+ rows .* up to 16 columns, and 7 values; .* expected"
        ):
            dataclasses.replace(table, values=table.values[:7])
        with pytest.raises(
            ArtifactError, match=r"^Only 0 of the \d+ interactions that .* Build the table from the data"
        ):
            dataclasses.replace(table, known_pairs=data.test)
        assert math.isclose(float(result.table[mask.dense(mask.width)].sum()), float(table.values.sum()), rel_tol=1e-4)


def test_a_run_directory_is_answered_with_its_tables(tmp_path: Path) -> None:
    for name in ("ciess-c90-s0", "equal-c90-s0"):
        (tmp_path / "tables" / name).mkdir(parents=True)
    with pytest.raises(ArtifactError) as caught:
        load(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} is a run directory, but the folder of one of its tables was expected. Give one of: "
        f"{tmp_path}/tables/ciess-c90-s0, {tmp_path}/tables/equal-c90-s0."
    )
