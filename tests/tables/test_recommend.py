import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ciess.data import Interactions
from ciess.errors import InputError
from ciess.tables.serving import rank


class TestRecommend:
    def test_known_items_are_left_out_and_the_best_come_first(
        self, trained: Any, backbone: str, kind: str, empty_row: int
    ) -> None:
        table = trained(backbone, kind)[0]
        names, indptr = table.item_ids.to_pylist(), table.known_pairs.indptr(table.n_users)
        for code in (0, empty_row, 47):
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
