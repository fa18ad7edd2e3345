from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ciess.data import Interactions, Pairs
from ciess.search.environment import Environment

USERS_OF_ITEMS = [[0, 1, 3], [0, 2], [0, 4], [1, 4], [2, 4], [], []]
"""Training users of the items of `tiny`."""


def make(data: Interactions, reference: Any = None, max_size: int = 128, **options: Any) -> Environment:
    """Environment of a data set; every row has the reference 1 unless told."""
    measured = np.ones(data.n, np.float32) if reference is None else np.array(reference, dtype=np.float32)
    counted = np.ones(data.n, np.bool_)
    return Environment(data.train, data.n_users, data.n_items, max_size, measured, counted, **options)


def states(environment: Environment, sizes: Any, ratios: Any, rows: Any = slice(None), **more: Any) -> Any:
    return environment.state(rows, np.array(sizes, np.int16), np.array(ratios, np.float32), **more)


class TestRows:
    def test_rows_are_users_then_items(self, tiny: Interactions) -> None:
        environment = make(tiny)
        assert environment.n == 12
        rows = np.arange(12)
        assert rows[environment.sides["users"]].tolist() == [0, 1, 2, 3, 4]
        assert rows[environment.sides["items"]].tolist() == [5, 6, 7, 8, 9, 10, 11]

    def test_degrees_count_training_pairs(self, tiny: Interactions) -> None:
        assert make(tiny).degrees.tolist() == [3, 2, 2, 1, 3, 3, 2, 2, 2, 2, 0, 0]

    def test_all_but_items_without_training_users_are_learnable(self, tiny: Interactions) -> None:
        assert make(tiny).learnable.tolist() == [True] * 10 + [False, False]

    def test_zeros_count_the_rows_of_each_side_whose_reference_is_0(self, tiny: Interactions) -> None:
        reference = np.full(12, 0.5)
        reference[[3, 7, 10, 11]] = 0
        reference[1] = 1e-30
        assert make(tiny, reference).zeros == {"users": 1, "items": 3}

    def test_counted_are_the_users_of_the_rows_that_were_measured(self, tiny: Interactions) -> None:
        counted = np.array([True, False, True, True, False] + [False] * 7)
        environment = Environment(tiny.train, 5, 7, 128, np.ones(12, np.float32), counted)
        assert environment.counted.tolist() == [True, False, True, True, False]


class TestState:
    def test_equation_6_popularity_is_normalised_for_each_side_apart(self, tiny: Interactions) -> None:
        found = states(make(tiny), np.ones(12), np.zeros(12))[:, 0]
        users = [(f - 1) / (3 - 1) for f in (3, 2, 2, 1, 3)]
        items = [(f - 0) / (3 - 0) for f in (3, 2, 2, 2, 2, 0, 0)]
        np.testing.assert_allclose(found, users + items, rtol=1e-6)

    def test_equation_6_popularity_is_0_where_all_are_equally_popular(self) -> None:
        pairs = Pairs.sorted(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
        environment = Environment(pairs, 2, 2, 128, np.ones(4, np.float32), np.ones(4, np.bool_))
        assert environment.popularity.tolist() == [0, 0, 0, 0]

    def test_equation_6_size_is_0_at_size_1_and_1_at_max_size(self, tiny: Interactions) -> None:
        sizes = [1, 2, 64, 127, 128]
        found = states(make(tiny), sizes, np.zeros(5), slice(0, 5))[:, 1]
        np.testing.assert_allclose(found, [0, 1 / 127, 63 / 127, 126 / 127, 1], rtol=1e-6)

    def test_equation_6_size_is_0_where_there_is_one_size(self, tiny: Interactions) -> None:
        assert states(make(tiny, max_size=1), np.ones(12), np.ones(12))[:, 1].tolist() == [0] * 12

    def test_equation_6_quality_ratio_is_the_third_column(self, tiny: Interactions) -> None:
        found = states(make(tiny), np.ones(12), np.arange(12) / 12)
        assert found.shape == (12, 3)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[:, 2], np.arange(12) / 12, rtol=1e-6)

    def test_equation_6_rows_may_be_chosen_in_any_order_and_more_than_once(self, tiny: Interactions) -> None:
        environment, sizes, ratios = make(tiny), np.arange(1, 13, dtype=np.int16), np.linspace(0, 1, 12)
        rows = np.array([11, 0, 5, 5])
        expected = states(environment, sizes, ratios)[rows]
        np.testing.assert_array_equal(states(environment, sizes[rows], ratios[rows], rows), expected)

    def test_targets_are_a_fourth_column_for_all_rows_or_each(self, tiny: Interactions) -> None:
        environment, plain = make(tiny), states(make(tiny), np.ones(12), np.zeros(12))
        for targets in (0.9, np.linspace(0.5, 0.9, 12, dtype=np.float32)):
            found = states(environment, np.ones(12), np.zeros(12), targets=targets)
            np.testing.assert_array_equal(found[:, :3], plain)
            np.testing.assert_allclose(found[:, 3], np.broadcast_to(targets, 12), rtol=1e-6)
            assert found.dtype == np.float32

    def test_a_side_without_rows_has_no_states(self) -> None:
        environment = Environment(Pairs.none(), 2, 0, 128, np.ones(2, np.float32), np.ones(2, np.bool_))
        assert states(environment, [], [], environment.sides["items"]).shape == (0, 3)
        assert environment.popularity.tolist() == [0, 0]


class TestQuality:
    def test_equations_8_and_9_users_keep_theirs_and_items_get_the_mean_of_their_training_users(
        self, tiny: Interactions
    ) -> None:
        of_users = np.array([0.1, 0.2, 0.4, 0.8, 1.0], dtype=np.float32)
        found = make(tiny).quality(of_users)
        np.testing.assert_array_equal(found[:5], of_users)
        for item, users in enumerate(USERS_OF_ITEMS):
            total = 0.0
            for user in users:
                total += float(of_users[user])
            assert found[5 + item] == pytest.approx(total / len(users) if users else 0.0, rel=1e-6)
        assert found.dtype == np.float32

    def test_equation_7_is_the_share_of_the_reference_and_at_most_1(self, tiny: Interactions) -> None:
        reference = [0.5, 0.4, 0.8, 0.1, 1.0, 0.25, 0.5, 0.2, 0.4, 0.9, 0.3, 0.3]
        quality = [0.25, 0.4, 0.9, 0.0, 0.3, 0.2, 0.6, 0.1, 0.1, 0.9, 0.3, 0.3]
        found = make(tiny, reference).quality_ratio(np.array(quality, dtype=np.float32))
        expected = [0.5, 1, 1, 0, 0.3, 0.8, 1, 0.5, 0.25, 1]
        np.testing.assert_allclose(found[:10], expected, rtol=1e-6)
        assert found.dtype == np.float32

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            ("one", [1, 1, 0.5, 1]),
            # Denominators 1e-5, 1e-5, 1e-5 and 1: 0/0 -> 0 and x/0 -> 1.
            ("floor", [0, 1, 0.1, 1]),
        ],
    )
    def test_equation_7_where_the_reference_is_0_or_next_to_it(
        self, tiny: Interactions, rule: str, expected: list[float]
    ) -> None:
        reference, quality = np.ones(12, np.float32), np.ones(12, np.float32)
        reference[:3], quality[:3] = [0, 0, 2e-6], [0, 0.7, 1e-6]
        found = make(tiny, reference, zero_reference=rule).quality_ratio(quality)
        np.testing.assert_allclose(found[:4], expected, rtol=1e-6)

    @pytest.mark.parametrize("rule", ["one", "floor"])
    @pytest.mark.parametrize("reference", [0.0, 0.5])
    def test_equation_7_is_1_for_an_item_without_training_users(
        self, tiny: Interactions, rule: str, reference: float
    ) -> None:
        environment = make(tiny, np.full(12, reference), zero_reference=rule)
        assert environment.quality_ratio(np.zeros(12, np.float32))[10:].tolist() == [1, 1]

    @pytest.mark.parametrize("rule", ["one", "floor"])
    def test_equation_7_of_the_reference_itself_is_1_but_for_a_floored_0(self, tiny: Interactions, rule: str) -> None:
        environment = make(tiny, zero_reference=rule)
        reference = environment.quality(np.array([0.1, 0.2, 0.0, 0.8, 1.0], dtype=np.float32))
        ratios = make(tiny, reference, zero_reference=rule).quality_ratio(reference)
        np.testing.assert_allclose(ratios, [1, 1, 0 if rule == "floor" else 1] + [1] * 9, rtol=1e-6)


class TestReward:
    def test_equation_10_takes_the_squared_share_of_max_size_times_the_memory_weight(self, tiny: Interactions) -> None:
        ratios, sizes = np.array([1, 0.9, 0.5, 0], np.float32), np.array([128, 64, 1, 32], np.int16)
        found = make(tiny).reward(ratios, sizes, 0.4)
        expected = [1 - 0.4, 0.9 - 0.4 * 0.25, 0.5 - 0.4 / 128**2, -0.4 / 16]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert found.dtype == np.float32

    def test_equation_10_by_a_loop_with_a_memory_weight_for_each(self, tiny: Interactions) -> None:
        generator = np.random.default_rng(0)
        ratios: npt.NDArray[np.float32] = generator.random(50, dtype=np.float32)
        sizes, weights = generator.integers(1, 257, 50).astype(np.int16), generator.random(50, dtype=np.float32)
        found = make(tiny, max_size=256).reward(ratios, sizes, weights)
        for n in range(50):
            expected = float(ratios[n]) - float(weights[n]) * (int(sizes[n]) / 256) ** 2
            assert found[n] == pytest.approx(expected, rel=1e-5, abs=1e-6)
