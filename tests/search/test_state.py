import copy
import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_searches import (
    TWO_TARGETS,
    bits,
    contents,
    finish,
    fitted,
    small,
    through_files,
    world,
)

from ciess.config.search import SearchConfig
from ciess.search.environment import Environment
from ciess.search.search import Search

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ou noise": {"noise": "ou"},
    "shared ou noise": {"noise": "ou", "shared_noise": True},
    "noise after the choice": {"noise_place": "after"},
    "no walk": {"random_walk": False, "noise": "uniform"},
    "two lanes, equal sizes": {"lanes": 2, "include_equal": True},
    "two targets": TWO_TARGETS | {"lanes": 2, "memory_weight_rate": 0.7},
    "two targets in turn": TWO_TARGETS | {"memory_weight_rate": 0.7, "include_equal": True},
    "three gradient steps": {"agent": {"gradient_steps": 3}},
    "raw quality": {"reward_quality": "raw", "lanes": 2},
    "short replay": {"agent": {"replay_iterations": 3}, "lanes": 2},
    "no bootstrap": {"agent": {"gamma": 0.0, "walk_critic": "min"}},
    "untrained items": {},
}


def setting(variant: str) -> tuple[SearchConfig, Environment]:
    return small(**VARIANTS[variant]), world(interactions=variant != "untrained items")


@functools.cache
def undisturbed(variant: str) -> Search:
    config, environment = setting(variant)
    return finish(Search(config, environment), lambda proposal: fitted(proposal, environment))


class TestState:
    @pytest.mark.parametrize("variant", VARIANTS)
    @given(st.sets(st.integers(0, 12)), st.integers(0, 99))
    @settings(max_examples=6)
    def test_an_interrupted_search_ends_with_the_same_bits(self, variant: str, stops: set[int], seed: int) -> None:
        """Stopped after any tells, also in the middle of a round; `stops` counts outcomes, told by chance."""
        config, environment = setting(variant)
        generator = np.random.default_rng(seed)
        search = Search(config, environment)
        while proposals := search.ask():
            if search.fits_done in stops:
                state = through_files(search.state_dict())
                before, search = contents(search), restored(state, config, environment)
                assert contents(search) == before
                proposals = search.ask()
            search.tell(fitted(proposals[generator.integers(len(proposals))], environment))
        assert contents(search) == contents(undisturbed(variant))

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_a_search_that_is_done_stays_done(self, variant: str) -> None:
        search = restored(through_files(undisturbed(variant).state_dict()), *setting(variant))
        assert search.done
        assert search.ask() == []
        assert contents(search) == contents(undisturbed(variant))
        assert search.last == undisturbed(variant).last
        assert [bits(c.mask.sizes) for c in search.candidates(0.5)] == [
            bits(c.mask.sizes) for c in undisturbed(variant).candidates(0.5)
        ]

    def test_a_state_is_a_snapshot(self) -> None:
        """Neither the search it was taken from nor the one that took it up changes it."""
        config, environment = setting("two targets")
        search = Search(config, environment)
        for _ in range(4):
            search.tell(fitted(search.ask()[0]))
        search.tell(fitted(search.ask()[1]))
        state = search.state_dict()
        before = copy.deepcopy(state)
        finish(search).record_checkpoint(1.0)
        finish(restored(state, config, environment)).record_checkpoint(1.0)
        assert state["values"] == before["values"]
        assert {name: bits(values) for name, values in state["arrays"].items()} == {
            name: bits(values) for name, values in before["arrays"].items()
        }

    @pytest.mark.parametrize("variant", ["plain", "two lanes, equal sizes", "two targets in turn"])
    def test_episodes_can_be_added(self, variant: str) -> None:
        longer = small(**VARIANTS[variant] | {"episodes": 4})
        search = restored(through_files(undisturbed(variant).state_dict()), longer, world())
        assert not search.done
        assert contents(finish(search)) == contents(finish(Search(longer, world())))

    def test_a_state_takes_the_place_of_another(self) -> None:
        """Whether the other search is done or in the middle of a round."""
        config, environment = setting("two targets")
        search, done, other = (Search(config, environment) for _ in range(3))
        for _ in range(3):
            search.tell(fitted(search.ask()[0]))
        finish(done)
        other.tell(fitted(other.ask()[1]))
        for target in (done, other):
            target.load_state_dict(search.state_dict())
            assert contents(target) == contents(search)


def restored(state: dict[str, Any], config: SearchConfig, environment: Environment) -> Search:
    search = Search(config, environment)
    search.load_state_dict(state)
    return search
