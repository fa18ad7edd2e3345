import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ciess.agent import policy
from ciess.agent.exploration import Noise, random_walk
from ciess.agent.networks import actions_to_sizes, sizes_to_actions
from ciess.agent.policy import Choice, _over_kinds, choose
from ciess.agent.td3 import TD3
from ciess.config.agent import AgentConfig
from ciess.config.search import SearchConfig
from ciess.devices import cpu_threads

Floats = npt.NDArray[np.float32]

N = 60
WHERE = (1, 4, 7)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Agents run on one thread, as in a search."""
    with cpu_threads(1):
        yield


def config(**changed: Any) -> SearchConfig:
    agent = AgentConfig(hidden=16, walk_critic=changed.pop("walk_critic", "first"))
    return SearchConfig(agent=agent, **{"min_size": 1, **changed})


def trained(settings: SearchConfig) -> TD3:
    """An agent whose twin critics prefer different sizes for different states."""
    return _trained(settings.agent.walk_critic)


@functools.cache
def _trained(rule: str) -> TD3:
    agent, generator = TD3(config(walk_critic=rule).agent, 3, 128, 0), np.random.default_rng(0)
    for _ in range(60):
        now, after = generator.random((2, 64, 3), dtype=np.float32)
        actions = generator.uniform(-1, 1, 64).astype(np.float32)
        agent.update(now, actions, np.cos(3 * actions + 4 * now[:, 0]), after, generator)
    return agent


def states(n: int = N) -> Floats:
    return np.random.default_rng(9).random((n, 3), dtype=np.float32)


def chosen_by(
    settings: SearchConfig, side: str = "users", where: tuple[int, int, int] = WHERE, before: Any = None, n: int = N
) -> Choice:
    noise_before = np.zeros(n) if before is None else before
    return choose(trained(settings), settings, states(n), noise_before, side, where)


def equal(one: Choice, other: Choice) -> bool:
    names = ("actor", "noisy", "chosen", "noise")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def rounded(sizes: npt.NDArray[Any]) -> list[int]:
    """Nearest whole sizes in 1..128."""
    return [min(max(round(float(size)), 1), 128) for size in sizes]


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[npt.NDArray[np.int16]]:
    """Sizes met on every walk of the test."""
    seen: list[npt.NDArray[np.int16]] = []
    walk = policy.random_walk

    def record(*arguments: Any) -> npt.NDArray[np.int16]:
        seen.append(walk(*arguments))
        return seen[-1]

    monkeypatch.setattr(policy, "random_walk", record)
    return seen


def best_by_brute_force(agent: TD3, met: npt.NDArray[np.int16], rule: str) -> list[int]:
    """Eq. 14, one entity and one size after the other; of equal values the first."""
    found = []
    for state, sizes in zip(states(len(met)), met.tolist(), strict=True):
        best, highest = 0, -np.inf
        for size in sizes:
            action = torch.tensor([2 * (size - 1) / 127 - 1], dtype=torch.float32)
            with torch.no_grad():
                twins = [float(critic(torch.from_numpy(state[None]), action)) for critic in agent.critics]
            value = twins[0] if rule == "first" else min(twins)
            if value > highest + 1e-6:
                best, highest = size, value
        found.append(best)
    return found


def values_of(agent: TD3, sizes: npt.NDArray[np.int16]) -> Floats:
    return agent.values(states(len(sizes)), sizes_to_actions(sizes, 128)[:, None])[:, 0]


class TestNoise:
    @pytest.mark.parametrize("kind", ["gaussian", "ou", "uniform", "none"])
    def test_equation_11_is_the_actors_size_plus_noise_within_1_to_max_size(self, kind: str) -> None:
        settings = config(noise=kind)
        choice = chosen_by(settings)
        actor = (trained(settings).act(states()) + 1) / 2 * 127 + 1
        np.testing.assert_allclose(choice.actor, actor, rtol=1e-6)
        np.testing.assert_allclose(choice.noisy, np.clip(actor + choice.noise, 1, 128), rtol=1e-5)
        assert (choice.noise == 0).all() == (kind == "none")
        types = (choice.actor.dtype, choice.noisy.dtype, choice.chosen.dtype, choice.noise.dtype)
        assert types == (np.float32, np.float32, np.int16, np.float64)

    def test_equation_11_strong_noise_ends_at_1_and_max_size(self) -> None:
        choice = chosen_by(config(gaussian_sd=500.0))
        assert (choice.noisy.min(), choice.noisy.max()) == (1, 128)
        assert 1 <= choice.chosen.min() <= choice.chosen.max() <= 128

    @pytest.mark.parametrize(
        ("changed", "sd"),
        [
            ({"gaussian_sd": 2.5}, 2.5),
            ({"noise": "uniform", "uniform_reach": 3.0}, 3 / 3**0.5),
            ({"noise": "ou", "ou_sd": 7.0, "ou_dt": 0.25}, 3.5),
        ],
    )
    def test_equation_11_the_noise_is_that_of_the_config(self, changed: dict[str, Any], sd: float) -> None:
        noise = chosen_by(config(**changed), n=5000).noise
        assert float(noise.std()) == pytest.approx(sd, rel=0.05)

    def test_ornstein_uhlenbeck_noise_goes_on_from_the_noise_before(self) -> None:
        before = np.linspace(-20, 20, N)
        choice = chosen_by(config(noise="ou", ou_sd=0.0, ou_theta=0.5, ou_dt=0.1), before=before)
        np.testing.assert_allclose(choice.noise, 0.95 * before)

    @pytest.mark.parametrize("kind", ["gaussian", "ou", "uniform"])
    def test_shared_noise_is_the_same_draw_for_all_users_and_items(self, kind: str) -> None:
        users, items = (chosen_by(config(noise=kind, shared_noise=True), side) for side in ("users", "items"))
        assert len({*users.noise.tolist(), *items.noise.tolist()}) == 1
        assert users.noise[0] != 0

    @pytest.mark.parametrize("kind", ["gaussian", "ou", "uniform"])
    def test_else_every_user_and_item_has_an_own_draw(self, kind: str) -> None:
        users, items = (chosen_by(config(noise=kind), side) for side in ("users", "items"))
        assert len({*users.noise.tolist(), *items.noise.tolist()}) == 2 * N


class TestWalk:
    @pytest.mark.parametrize("rule", ["first", "min"])
    def test_equation_14_chooses_the_size_of_the_highest_value_on_the_walk(
        self, rule: str, walks: list[npt.NDArray[np.int16]]
    ) -> None:
        settings = config(walk_critic=rule)
        choice = chosen_by(settings)
        (met,) = walks
        assert choice.chosen.tolist() == best_by_brute_force(trained(settings), met, rule)
        assert 0.1 < (choice.chosen == met[:, 0]).mean() < 0.9

    def test_equation_14_the_twins_minimum_chooses_other_sizes_than_the_first(self) -> None:
        first, least = (chosen_by(config(walk_critic=rule), n=500).chosen for rule in ("first", "min"))
        assert (first != least).any()

    def test_equation_14_never_chooses_less_value_than_that_of_the_start(
        self, walks: list[npt.NDArray[np.int16]]
    ) -> None:
        settings = config()
        choice, agent = chosen_by(settings, n=500), trained(settings)
        start = walks[0][:, 0]
        assert (values_of(agent, choice.chosen) >= values_of(agent, start) - 1e-6).all()
        assert (values_of(agent, choice.chosen) > values_of(agent, start) + 1e-4).any()

    def test_the_walk_starts_at_the_rounded_noisy_size(self, walks: list[npt.NDArray[np.int16]]) -> None:
        choice = chosen_by(config())
        assert walks[0][:, 0].tolist() == rounded(choice.noisy)

    @pytest.mark.parametrize(("length", "reach"), [(1, 1), (3, 2), (5, 5)])
    def test_the_walk_has_the_length_and_reach_of_the_config(
        self, length: int, reach: int, walks: list[npt.NDArray[np.int16]]
    ) -> None:
        chosen_by(config(walk_length=length, walk_reach=reach))
        assert walks[0].shape == (N, length + 1)
        assert np.abs(np.diff(walks[0].astype(int), axis=1)).max() == reach

    @pytest.mark.parametrize(("weights", "share"), [("distance", 1 / 15), ("inverse", 60 / 137)])
    def test_equation_13_the_walk_has_the_weights_of_the_config(
        self, weights: str, share: float, walks: list[npt.NDArray[np.int16]]
    ) -> None:
        chosen_by(config(walk_weights=weights), n=2000)
        steps = np.abs(np.diff(walks[0].astype(int), axis=1))
        assert float((steps == 1).mean()) == pytest.approx(share, abs=0.02)

    def test_without_a_walk_the_noisy_size_is_rounded(self, walks: list[npt.NDArray[np.int16]]) -> None:
        choice = chosen_by(config(random_walk=False))
        assert choice.chosen.tolist() == rounded(choice.noisy)
        assert not walks


class TestNoiseAfter:
    def test_noise_comes_after_the_critics_choice(self, walks: list[npt.NDArray[np.int16]]) -> None:
        settings = config(noise_place="after")
        choice = chosen_by(settings)
        (met,) = walks
        assert met[:, 0].tolist() == rounded(choice.actor)
        best = np.array(best_by_brute_force(trained(settings), met, "first"))
        np.testing.assert_allclose(choice.noisy, np.clip(best + choice.noise, 1, 128), rtol=1e-5)
        assert choice.chosen.tolist() == rounded(choice.noisy)
        assert (choice.noise != 0).all()

    def test_what_the_walk_chose_is_kept_apart_from_what_noise_made_of_it(self) -> None:
        quiet = chosen_by(config(noise="none"))
        late = chosen_by(config(noise_place="after"))
        np.testing.assert_array_equal(late.walked, quiet.chosen)
        assert (late.chosen != late.walked).mean() > 0.5
        before = chosen_by(config())
        np.testing.assert_array_equal(before.chosen, before.walked)

    def test_without_a_walk_noise_comes_after_rounding(self) -> None:
        choice = chosen_by(config(noise_place="after", random_walk=False))
        expected = np.clip(np.array(rounded(choice.actor)) + choice.noise, 1, 128)
        np.testing.assert_allclose(choice.noisy, expected, rtol=1e-5)
        assert choice.chosen.tolist() == rounded(choice.noisy)

    def test_strong_noise_ends_at_1_and_max_size(self) -> None:
        choice = chosen_by(config(noise_place="after", gaussian_sd=500.0))
        assert (choice.noisy.min(), choice.noisy.max()) == (1, 128)
        assert (choice.chosen.min(), choice.chosen.max()) == (1, 128)

    def test_the_draws_are_those_of_noise_before(self) -> None:
        before, after = (chosen_by(config(noise_place=slot)) for slot in ("before", "after"))
        np.testing.assert_array_equal(before.noise, after.noise)


class TestSeeds:
    @pytest.mark.parametrize("changed", [{}, {"noise": "ou"}, {"shared_noise": True}, {"noise_place": "after"}])
    def test_equal_state_and_place_give_equal_bits_whatever_ran_before(self, changed: dict[str, Any]) -> None:
        settings = config(**changed)
        agent, noise_before = trained(settings), np.zeros(N)
        one = choose(agent, settings, states(), noise_before, "users", WHERE)
        choose(agent, settings, states(), one.noise, "items", (1, 4, 8))
        assert equal(one, choose(agent, settings, states(), noise_before, "users", WHERE))
        assert not noise_before.any()

    @pytest.mark.parametrize("where", [(0, 4, 7), (1, 5, 7), (1, 4, 8), (1, 7, 4)])
    def test_another_lane_episode_or_iteration_draws_other_noise_and_walks(
        self, where: tuple[int, int, int], walks: list[npt.NDArray[np.int16]]
    ) -> None:
        assert (chosen_by(config()).noise != chosen_by(config(), where=where).noise).all()
        # Without noise both walks start at the same sizes.
        for slot in (WHERE, where):
            chosen_by(config(noise="none"), where=slot)
        np.testing.assert_array_equal(walks[2][:, 0], walks[3][:, 0])
        assert (walks[2][:, 1] != walks[3][:, 1]).any()

    @pytest.mark.parametrize("shared", [False, True])
    def test_another_seed_of_the_run_draws_other_noise_and_walks(
        self, shared: bool, walks: list[npt.NDArray[np.int16]]
    ) -> None:
        one, other = (chosen_by(config(seed=seed, shared_noise=shared)) for seed in (0, 1))
        assert (one.noise != other.noise).all()
        for seed in (0, 1):
            chosen_by(config(seed=seed, noise="none"))
        assert (walks[2][:, 1] != walks[3][:, 1]).any()

    def test_users_and_items_walk_apart_also_with_shared_noise(self, walks: list[npt.NDArray[np.int16]]) -> None:
        for side in ("users", "items"):
            chosen_by(config(shared_noise=True), side)
        np.testing.assert_array_equal(walks[0][:, 0], walks[1][:, 0])
        assert (walks[0][:, 1] != walks[1][:, 1]).any()

    def test_a_choice_leaves_the_agent_as_it_is(self) -> None:
        agent, settings = trained(config()), config()
        before = agent.state_dict()
        choose(agent, settings, states(), np.zeros(N), "users", WHERE)
        for name, value in agent.state_dict().items():
            np.testing.assert_array_equal(value, before[name])

    def test_a_side_without_entities_has_no_sizes(self) -> None:
        for shared in (False, True):
            assert chosen_by(config(shared_noise=shared), n=0).chosen.shape == (0,)

    def test_with_one_size_everyone_gets_it(self) -> None:
        for slot in ("before", "after"):
            settings = config(max_size=1, noise_place=slot)
            choice = choose(TD3(settings.agent, 3, 1, 0), settings, states(), np.zeros(N), "users", WHERE)
            assert set(choice.chosen.tolist()) == {1}


class TestKinds:
    """Rows of one kind share a draw, a walk and the critic's choice."""

    def test_noise_and_walk_move_the_rows_of_a_kind_alike(self) -> None:
        kinds = np.array([0, 1, 0, 1, 1, 0])
        noise = Noise("gaussian", False, 6.0, 0.15, 0.01, 40.0, 11.0)
        drawn = noise.draw(np.zeros(6), np.random.default_rng(0), kinds)
        assert len(np.unique(drawn)) == 2 and drawn[0] == drawn[2] == drawn[5] and drawn[1] == drawn[3] == drawn[4]
        starts = np.full(6, 60, np.int16)
        met = random_walk(starts, 5, 5, "distance", 128, np.random.default_rng(0), 1, kinds)
        for kind in (0, 1):
            assert (met[kinds == kind] == met[kinds == kind][0]).all()
        assert (met[0] != met[1]).any()

    def test_the_mean_value_over_a_kind_chooses(self) -> None:
        values = np.array([[1.0, 0.0], [0.0, 3.0], [0.5, 0.4]], np.float32)
        found = _over_kinds(values, np.array([0, 0, 1]))
        assert found.argmax(1).tolist() == [1, 1, 0]
        assert found[0].tolist() == found[1].tolist() == pytest.approx([0.5, 1.5])
        assert _over_kinds(values, None) is values


class TestLogScale:
    @pytest.mark.parametrize("low", [0, 1])
    def test_actions_and_sizes_are_each_other_s_inverse(self, low: int) -> None:
        sizes = np.arange(low, 129)
        actions = sizes_to_actions(sizes, 128, low, "log")
        assert actions[0] == -1 and actions[-1] == pytest.approx(1)
        np.testing.assert_allclose(actions_to_sizes(actions, 128, low, "log"), sizes, rtol=1e-4, atol=1e-4)
        # Half of the actions are for the smallest eighth of the sizes, instead of an eighth of them.
        assert (actions[sizes <= 11] < 0.05).all() and actions[12] > 0
