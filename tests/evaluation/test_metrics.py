import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ciess.data import Interactions, Pairs
from ciess.errors import FitError
from ciess.evaluation import ranking
from ciess.evaluation.metrics import CUTOFFS, UserMetrics, evaluate, item_quality
from ciess.evaluation.ranking import PairLookup

CPU = torch.device("cpu")


Scores = npt.NDArray[np.float32]


def pairs_of(by_user: Sequence[set[int]]) -> Pairs:
    return Pairs.sorted(
        np.array([user for user, items in enumerate(by_user) for _ in items], dtype=np.int64),
        np.array([item for items in by_user for item in items], dtype=np.int64),
    )


def run(scores: Scores, seen: Sequence[Sequence[set[int]]], held_out: Sequence[set[int]]) -> UserMetrics:
    """Evaluate with these scores, hiding the pairs of all of `seen`."""
    n_users, n_items = scores.shape
    table = torch.from_numpy(scores)
    lookups = [PairLookup(pairs_of(items), n_users, n_items, CPU) for items in (*seen, held_out)]
    return evaluate(lambda users: table[users].clone(), lookups[:-1], lookups[-1])


def brute_force(scores: Scores, seen: Sequence[set[int]], held_out: Sequence[set[int]]) -> dict[str, list[float]]:
    """Recall@k = hits / |T_u| and NDCG@k, one user, one item at a time."""
    values: dict[str, list[float]] = {f"{name}@{k}": [] for name in ("Recall", "NDCG") for k in CUTOFFS}
    for user, wanted in enumerate(held_out):
        candidates = [item for item in range(scores.shape[1]) if item not in seen[user]]
        ranking = sorted(candidates, key=lambda item: (-scores[user, item], item))
        for k in CUTOFFS:
            hits, dcg, ideal = 0, 0.0, 0.0
            for position, item in enumerate(ranking[:k]):
                if item in wanted:
                    hits += 1
                    dcg += 1 / math.log2(position + 2)
            for position in range(min(k, len(wanted))):
                ideal += 1 / math.log2(position + 2)
            values[f"Recall@{k}"].append(hits / len(wanted) if wanted else 0.0)
            values[f"NDCG@{k}"].append(dcg / ideal if wanted else 0.0)
    return values


@st.composite
def rankings(draw: st.DrawFn) -> tuple[Scores, list[set[int]], list[set[int]]]:
    """Scores with many ties, for catalogues smaller and larger than k; any share of seen and of held-out items."""
    n_users, n_items = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    scores = generator.integers(-levels, levels, (n_users, n_items)).astype(np.float32) / 4
    parts = generator.random((n_users, n_items))
    seen_share = draw(st.sampled_from([0.0, 0.3, 0.95]))
    held_share = draw(st.sampled_from([0.0, 0.02, 0.3, 1.0]))
    seen = parts < seen_share
    held_out = ~seen & (generator.random((n_users, n_items)) < held_share)
    return scores, [set(np.flatnonzero(row)) for row in seen], [set(np.flatnonzero(row)) for row in held_out]


class TestEvaluate:
    @given(rankings())
    def test_recall_and_ndcg_equal_a_brute_force_loop(self, case) -> None:
        scores, seen, held_out = case
        result = run(scores, [seen], held_out)
        expected = brute_force(scores, seen, held_out)
        assert list(result.values) == list(expected)
        for name, values in expected.items():
            assert result.values[name].dtype == np.float32
            np.testing.assert_allclose(result.values[name], values, rtol=2e-6, atol=0, err_msg=name)
        assert result.counted.tolist() == [bool(items) for items in held_out]

    @given(rankings(), st.integers(0, 10_000))
    def test_several_parts_can_be_hidden(self, case, seed: int) -> None:
        scores, seen, held_out = case
        generator = np.random.default_rng(seed)
        first = [{item for item in sorted(items) if generator.random() < 0.5} for items in seen]
        rest = [items - part for items, part in zip(seen, first, strict=True)]
        together, apart = run(scores, [seen], held_out), run(scores, [first, rest], held_out)
        for name, values in together.values.items():
            np.testing.assert_array_equal(apart.values[name], values)

    @given(rankings())
    def test_results_do_not_depend_on_the_block_size(self, case) -> None:
        scores, seen, held_out = case
        whole = run(scores, [seen], held_out)
        for block_bytes in (1, 4 * scores.shape[1] * 2, 4 * scores.shape[1] * 3):
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(ranking.BLOCK_BYTES, "cpu", block_bytes)
                blocks = run(scores, [seen], held_out)
            np.testing.assert_array_equal(blocks.counted, whole.counted)
            for name, values in whole.values.items():
                np.testing.assert_array_equal(blocks.values[name], values)

    def test_blocks_keep_to_their_memory(self, tiny: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
        held_out = PairLookup(tiny.valid, tiny.n_users, tiny.n_items, CPU)
        sizes: list[int] = []

        def score_users(users: torch.Tensor) -> torch.Tensor:
            sizes.append(len(users))
            return torch.zeros(len(users), tiny.n_items)

        monkeypatch.setitem(ranking.BLOCK_BYTES, "cpu", 4 * tiny.n_items * 2 * 8)
        evaluate(score_users, [], held_out, floats_per_score=8)
        assert sizes == [2, 2, 1]

    def test_ndcg_of_known_ranks(self) -> None:
        # Held-out items at ranks 1, 7 and 15, whose discounts are 1, 1/3 and 1/4.
        scores = -np.arange(25, dtype=np.float32)[None]
        result = run(scores, [[set()]], [{0, 6, 14}])
        ideal = 1 + 1 / math.log2(3) + 1 / 2
        expected = {
            "Recall@5": 1 / 3,
            "Recall@10": 2 / 3,
            "Recall@20": 1,
            "NDCG@5": 1 / ideal,
            "NDCG@10": (4 / 3) / ideal,
            "NDCG@20": (19 / 12) / ideal,
        }
        assert {name: float(values[0]) for name, values in result.values.items()} == pytest.approx(expected, rel=1e-6)

    def test_recall_divides_by_all_held_out_items_and_ndcg_by_k_of_them(self) -> None:
        result = run(-np.arange(30, dtype=np.float32)[None], [[set()]], [set(range(30))])
        assert {name: float(values[0]) for name, values in result.values.items()} == pytest.approx(
            {"Recall@5": 5 / 30, "Recall@10": 10 / 30, "Recall@20": 20 / 30, "NDCG@5": 1, "NDCG@10": 1, "NDCG@20": 1}
        )

    def test_users_without_held_out_items_are_not_averaged_in(self) -> None:
        scores = np.zeros((3, 30), dtype=np.float32)
        result = run(scores, [[set()] * 3], [{0}, set(), {29}])
        assert result.counted.tolist() == [True, False, True]
        assert result.means()["Recall@20"] == 0.5
        assert result.mean_quality() == 0.5

    def test_scores_that_are_not_numbers_are_refused(self) -> None:
        scores = np.zeros((2, 30), dtype=np.float32)
        scores[1, 17] = np.nan
        with pytest.raises(FitError, match=r"scores that are not numbers\. Train it again with a lower learning rate"):
            run(scores, [[set()] * 2], [{0}, {1}])


class TestQuality:
    def test_eq8_is_the_mean_of_recall_and_ndcg_at_5_10_20(self) -> None:
        values = {f"{name}@{k}": np.float32([0.0, 0.0]) for name in ("Recall", "NDCG") for k in (5, 10, 20)}
        values |= {"Recall@20": np.float32([0.5, 1.0]), "NDCG@5": np.float32([0.25, 0.0])}
        result = UserMetrics(values, np.array([True, True]))
        np.testing.assert_allclose(result.quality(), [0.125, 1 / 6], rtol=1e-6)
        assert result.mean_quality() == pytest.approx((0.125 + 1 / 6) / 2, rel=1e-6)

    @given(rankings())
    def test_eq8_equals_a_brute_force_loop(self, case) -> None:
        scores, seen, held_out = case
        expected = np.mean(list(brute_force(scores, seen, held_out).values()), axis=0)
        np.testing.assert_allclose(run(scores, [seen], held_out).quality(), expected, rtol=2e-6, atol=1e-9)

    def test_eq9_is_the_mean_quality_of_an_items_training_users(self, tiny: Interactions) -> None:
        user_quality = np.array([0.1, 0.2, 0.4, 0.8, 1.0], dtype=np.float32)
        values, counted = item_quality(user_quality, tiny.train, tiny.n_items)
        expected = [(0.1 + 0.2 + 0.8) / 3, (0.1 + 0.4) / 2, (0.1 + 1.0) / 2, (0.2 + 1.0) / 2, (0.4 + 1.0) / 2, 0, 0]
        np.testing.assert_allclose(values, expected, rtol=1e-6)
        assert counted.tolist() == [True] * 5 + [False] * 2

    @given(rankings(), st.integers(0, 10_000))
    def test_eq9_equals_a_loop_over_pairs(self, case, seed: int) -> None:
        scores, train, _ = case
        n_users, n_items = scores.shape
        user_quality = np.random.default_rng(seed).random(n_users)
        values, counted = item_quality(user_quality, pairs_of(train), n_items)
        for item in range(n_items):
            of_item = [user_quality[user] for user in range(n_users) if item in train[user]]
            assert counted[item] == bool(of_item)
            assert values[item] == pytest.approx(sum(of_item) / len(of_item) if of_item else 0.0, rel=1e-6)
