import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ciess.agent.exploration import Noise, random_walk

WALKS = 100_000


def noise(kind: str, **changed: Any) -> Noise:
    """Noise of the default settings."""
    settings = {
        "shared": False,
        "gaussian_sd": 6.0,
        "ou_theta": 0.15,
        "ou_dt": 0.01,
        "ou_sd": 40.0,
        "uniform_reach": 11.0,
    }
    return Noise(kind, **(settings | changed))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def chances(start: int, reach: int, weights: str, max_size: int) -> dict[int, float]:
    """Eq. 13 term by term; `inverse` puts 1 / |d' - d| in the place of |d' - d|."""
    neighbours = [
        size
        for size in range(1, max_size + 1)
        if size != start and abs(size - start) <= reach  # Eq. 12
    ]
    weight = {size: abs(size - start) if weights == "distance" else 1 / abs(size - start) for size in neighbours}
    return {size: value / sum(weight.values()) for size, value in weight.items()}


def steps_fit(sizes: npt.NDArray[np.int16], start: int, reach: int, weights: str, max_size: int) -> bool:
    """Whether the sizes reached from `start` are spread as Eq. 13 says, by chi-square."""
    expected = chances(start, reach, weights, max_size)
    counts = np.array([(sizes == size).sum() for size in expected])
    assert counts.sum() == len(sizes)
    return bool(stats.chisquare(counts, np.array(list(expected.values())) * len(sizes)).pvalue > 1e-3)


class TestWalk:
    @given(
        st.integers(2, 40), st.integers(1, 45), st.integers(1, 8), st.sampled_from(["distance", "inverse"]), st.data()
    )
    def test_equation_12_no_step_is_longer_than_reach_or_of_length_0_or_leaves_1_to_max_size(
        self, max_size: int, reach: int, length: int, weights: str, data: st.DataObject
    ) -> None:
        starts = np.array(data.draw(st.lists(st.integers(1, max_size), max_size=30)), dtype=np.int16)
        met = random_walk(starts, length, reach, weights, max_size, rng(data.draw(st.integers(0, 1000))))
        assert met.shape == (len(starts), length + 1)
        assert met.dtype == np.int16
        np.testing.assert_array_equal(met[:, 0], starts)
        steps = np.abs(np.diff(met.astype(int), axis=1))
        assert ((steps >= 1) & (steps <= reach)).all()
        assert ((met >= 1) & (met <= max_size)).all()

    @pytest.mark.parametrize("weights", ["distance", "inverse"])
    @pytest.mark.parametrize("drawn", [0.0, math.nextafter(1.0, 0.0)])
    def test_equation_12_holds_for_the_smallest_and_largest_numbers_that_can_be_drawn(
        self, drawn: float, weights: str
    ) -> None:
        class Extreme(np.random.Generator):
            def random(self, size: Any = None, *_: Any, **__: Any) -> Any:
                return np.full(size, drawn)

        met = random_walk(np.arange(1, 21, dtype=np.int16), 4, 5, weights, 20, Extreme(np.random.PCG64(0)))
        steps = np.abs(np.diff(met.astype(int), axis=1))
        assert 1 <= steps.min() <= steps.max() <= 5
        assert 1 <= met.min() <= met.max() <= 20

    @pytest.mark.parametrize("weights", ["distance", "inverse"])
    @pytest.mark.parametrize("start", [1, 2, 4, 64, 124, 127, 128])
    def test_equation_13_inside_and_at_both_edges(self, start: int, weights: str) -> None:
        starts = np.full(WALKS, start, dtype=np.int16)
        met = random_walk(starts, 1, 5, weights, 128, rng(start))
        assert steps_fit(met[:, 1], start, 5, weights, 128)

    @pytest.mark.parametrize("weights", ["distance", "inverse"])
    def test_equation_13_at_every_step_from_wherever_the_walk_is(self, weights: str) -> None:
        met = random_walk(np.full(WALKS, 5, dtype=np.int16), 3, 4, weights, 9, rng(7))
        for step in (1, 2):
            for place in range(1, 10):
                here = met[:, step] == place
                if here.any():
                    assert steps_fit(met[here, step + 1], place, 4, weights, 9)

    def test_equation_13_a_reach_beyond_both_edges_leads_to_every_other_size(self) -> None:
        met = random_walk(np.full(WALKS, 2, dtype=np.int16), 1, 100, "distance", 6, rng())
        assert steps_fit(met[:, 1], 2, 100, "distance", 6)

    @pytest.mark.parametrize(("weights", "sd"), [("distance", 8.66), ("inverse", 5.73)])
    def test_five_steps_inside_spread_as_far_as_their_chances_say(self, weights: str, sd: float) -> None:
        met = random_walk(np.full(WALKS, 64, dtype=np.int16), 5, 5, weights, 128, rng())
        assert float(met[:, 5].std()) == pytest.approx(sd, rel=0.01)

    @pytest.mark.parametrize("weights", ["distance", "inverse"])
    def test_with_one_size_the_walk_stays(self, weights: str) -> None:
        met = random_walk(np.ones(4, dtype=np.int16), 3, 5, weights, 1, rng())
        assert met.tolist() == [[1, 1, 1, 1]] * 4

    def test_entities_walk_independently(self) -> None:
        met = random_walk(np.full(WALKS, 64, dtype=np.int16), 1, 5, "distance", 128, rng())
        steps = met[:, 1].astype(float) - 64
        assert abs(np.corrcoef(steps[:-1], steps[1:])[0, 1]) < 5 / math.sqrt(WALKS)

    def test_equal_generators_walk_equally_and_others_otherwise(self) -> None:
        starts = np.arange(1, 129, dtype=np.int16)
        one, same, other = (random_walk(starts, 5, 5, "distance", 128, rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()
        np.testing.assert_array_equal(starts, np.arange(1, 129))


class TestNoise:
    def test_equation_11_gaussian_has_mean_0_and_sd_6(self) -> None:
        drawn = noise("gaussian").draw(np.zeros(WALKS), rng())
        assert stats.kstest(drawn, stats.norm(0, 6).cdf).pvalue > 1e-3

    def test_uniform_fills_plus_minus_11(self) -> None:
        drawn = noise("uniform").draw(np.zeros(WALKS), rng())
        assert stats.kstest(drawn, stats.uniform(-11, 22).cdf).pvalue > 1e-3
        assert -11 <= drawn.min() < drawn.max() <= 11

    def test_none_is_zero(self) -> None:
        assert noise("none").draw(np.full(5, 7.0), rng()).tolist() == [0.0] * 5

    @pytest.mark.parametrize("kind", ["gaussian", "uniform", "none"])
    def test_only_ornstein_uhlenbeck_noise_goes_on_from_the_noise_before(self, kind: str) -> None:
        one, other = (noise(kind).draw(before, rng()) for before in (np.zeros(9), np.full(9, 50.0)))
        np.testing.assert_array_equal(one, other)

    def test_ornstein_uhlenbeck_is_its_recursion(self) -> None:
        theta, dt, sd = 0.7, 0.2, 3.0
        kind = noise("ou", ou_theta=theta, ou_dt=dt, ou_sd=sd)
        drawn, generator, same = np.zeros(4), rng(), rng()
        expected = [0.0] * 4
        for _ in range(6):
            drawn = kind.draw(drawn, generator)
            normal = same.standard_normal(4)
            expected = [x - theta * x * dt + sd * math.sqrt(dt) * z for x, z in zip(expected, normal, strict=True)]
            np.testing.assert_allclose(drawn, expected, rtol=1e-12)

    def test_ornstein_uhlenbeck_has_sd_4_at_the_first_step_and_13_2_at_the_eleventh(self) -> None:
        kind, drawn, generator = noise("ou"), np.zeros(WALKS), rng()
        for step in range(1, 12):
            before, drawn = drawn, kind.draw(drawn, generator)
            assert float((drawn - before).std()) == pytest.approx(4.0, rel=0.02)
            variance = sum(16 * (1 - 0.0015) ** (2 * i) for i in range(step))
            assert float(drawn.std()) == pytest.approx(math.sqrt(variance), rel=0.02)
        assert float(drawn.std()) == pytest.approx(13.2, rel=0.02)

    @pytest.mark.parametrize("kind", ["gaussian", "ou", "uniform"])
    def test_shared_is_one_draw_for_all_and_else_everyone_has_an_own(self, kind: str) -> None:
        together, generator = np.zeros(50), rng()
        met = []
        for _ in range(3):
            together = noise(kind, shared=True).draw(together, generator)
            assert len(set(together.tolist())) == 1
            met.append(together[0])
        assert len(set(met)) == 3
        assert len(set(noise(kind).draw(np.zeros(50), rng()).tolist())) == 50

    @pytest.mark.parametrize("kind", ["gaussian", "ou", "uniform"])
    def test_shared_noise_does_not_depend_on_how_many_share_it(self, kind: str) -> None:
        few, many = (noise(kind, shared=True).draw(np.full(count, 2.0), rng()) for count in (3, 30))
        assert few[0] == many[0]

    @pytest.mark.parametrize("kind", ["gaussian", "ou", "uniform"])
    @pytest.mark.parametrize("shared", [False, True])
    def test_equal_generators_draw_equally_and_leave_the_noise_before_alone(self, kind: str, shared: bool) -> None:
        before = np.full(20, 3.0)
        one, same, other = (noise(kind, shared=shared).draw(before, rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert (one != other).all()
        assert before.tolist() == [3.0] * 20

    @pytest.mark.parametrize("kind", ["gaussian", "ou", "uniform", "none"])
    @pytest.mark.parametrize("shared", [False, True])
    def test_a_side_without_entities_has_no_noise(self, kind: str, shared: bool) -> None:
        assert noise(kind, shared=shared).draw(np.zeros(0), rng()).shape == (0,)
