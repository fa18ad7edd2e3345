from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given
from hypothesis import strategies as st

from ciess.data import Interactions, Pairs
from ciess.evaluation.ranking import FEWEST_GROUPS, GROUP, PairLookup, top_items

CPU = torch.device("cpu")


Scores = npt.NDArray[np.float32]


def pairs_of(by_user: Sequence[set[int]]) -> Pairs:
    return Pairs.sorted(
        np.array([user for user, items in enumerate(by_user) for _ in items], dtype=np.int64),
        np.array([item for items in by_user for item in items], dtype=np.int64),
    )


class TestTopItems:
    @given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30), st.integers(0, 10_000))
    def test_equals_a_stable_sort(self, rows: int, n_items: int, k: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        levels = np.array([-np.inf, -1.5, 0.0, 2.0, np.inf], dtype=np.float32)[: generator.integers(1, 6)]
        scores = generator.choice(levels, (rows, n_items))
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        expected = np.where(np.take_along_axis(scores, expected, axis=1) == -np.inf, -1, expected)
        assert top_items(torch.from_numpy(scores), k).tolist() == expected.tolist()

    @given(st.integers(1, 5), st.integers(0, 130), st.sampled_from([3, 40, 10**6]), st.integers(0, 10_000))
    def test_of_many_items_it_is_a_stable_sort_too(self, k: int, more: int, levels: int, seed: int) -> None:
        """Many enough to be ranked by groups; equal scores stand in one and in several of them."""
        generator = np.random.default_rng(seed)
        n_items = GROUP * FEWEST_GROUPS * (k + 1) + more
        scores = generator.integers(0, levels, (3, n_items)).astype(np.float32)
        scores[1, generator.random(n_items) < 0.9] = -np.inf
        scores[2] = np.sort(scores[2])
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        assert top_items(torch.from_numpy(scores), k).tolist() == expected.tolist()

    def test_a_thousand_equal_scores_are_ranked_by_index(self) -> None:
        assert top_items(torch.ones(2, 1000), 20).tolist() == [list(range(20))] * 2

    def test_scores_are_left_as_they_are(self) -> None:
        scores = torch.tensor([[1.0, 1.0, 0.0]])
        top_items(scores, 1)
        assert scores.tolist() == [[1.0, 1.0, 0.0]]


class TestPairLookup:
    def test_contains_exactly_its_pairs(self, tiny: Interactions) -> None:
        lookup = PairLookup(tiny.train, tiny.n_users, tiny.n_items, CPU)
        found = lookup.contains(torch.arange(5)[:, None], torch.arange(7)[None])
        expected = np.zeros((5, 7), dtype=bool)
        expected[tiny.train.users, tiny.train.items] = True
        np.testing.assert_array_equal(found.numpy(), expected)
        assert lookup.counts.tolist() == [3, 2, 2, 1, 3]

    def test_hides_exactly_its_pairs_of_a_block(self, tiny: Interactions) -> None:
        scores = torch.zeros(3, 7)
        PairLookup(tiny.train, tiny.n_users, tiny.n_items, CPU).hide(scores, 2)
        expected = np.zeros((5, 7), dtype=np.float32)
        expected[tiny.train.users, tiny.train.items] = -np.inf
        np.testing.assert_array_equal(scores.numpy(), expected[2:])

    def test_no_pairs_at_all_are_a_lookup_too(self) -> None:
        lookup = PairLookup(Pairs.none(), 3, 4, CPU)
        assert not lookup.contains(torch.arange(3)[:, None], torch.arange(4)[None]).any()
