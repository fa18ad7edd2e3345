"""Strategy `td3` at a sparsity: actors that begin with the rule, and critics that learn first."""

from typing import Any

import numpy as np
from tiny_searches import MAX_SIZE, N_USERS, fitted, world

from ciess.agent.networks import sizes_to_actions
from ciess.agent.td3 import TD3
from ciess.config.search import SearchConfig
from ciess.masks.popularity import sized_mask
from ciess.search.search import Search
from ciess.training.starts.rule import Rule

RULES = {0.5: Rule(0.5, 0.5)}


def config(**agent: Any) -> SearchConfig:
    return SearchConfig(
        sparsity=(0.5,), strategy="td3", fits=20, iterations=10, max_size=MAX_SIZE, min_size=1, agent=agent
    )


def actors(search: Search) -> dict[str, TD3]:
    return search._strategy._learner._agents


def wanted() -> np.ndarray:
    return sized_mask(world().degrees, N_USERS, MAX_SIZE, 0.5, world().bounds, 0.5, 0.5).sizes


def test_actors_begin_with_the_sizes_of_the_rule() -> None:
    search = Search(config(), world(), RULES)
    for side, rows in world().sides.items():
        state = world().state(rows, wanted()[rows], np.ones(len(wanted()[rows]), np.float32))
        expected = sizes_to_actions(wanted()[rows], MAX_SIZE, 1, "log")
        found = actors(search)[side].act(state)
        # Rows of one popularity look the same to them, whatever a rule gives the last of these.
        assert np.abs(found - expected).mean() < 0.1
    drawn = actors(Search(config(begin="drawn"), world(), RULES))["items"].act(state)
    assert np.abs(drawn - expected).mean() > 0.2


def test_critics_learn_alone_before_the_actor_moves() -> None:
    search = Search(config(warm_up=5, gradient_steps=2), world(), RULES)
    actor = {side: [p.detach().clone() for p in agent.actor.parameters()] for side, agent in actors(search).items()}
    critics = [p.detach().clone() for p in actors(search)["items"].critics.parameters()]

    def moved() -> bool:
        return any(
            not new.equal(old)
            for side, agent in actors(search).items()
            for new, old in zip(agent.actor.parameters(), actor[side], strict=True)
        )

    done = 0
    while done < 5 or not moved():
        for proposal in search.ask():
            search.tell(fitted(proposal, world()))
            done += proposal.episode > 0
        assert not moved() or done > 5
    assert done == 6
    assert any(
        not new.equal(old) for new, old in zip(actors(search)["items"].critics.parameters(), critics, strict=True)
    )


def test_equal_searches_have_equal_actors() -> None:
    first, second = (Search(config(), world(), RULES) for _ in range(2))
    for side, agent in actors(first).items():
        for one, other in zip(agent.actor.parameters(), actors(second)[side].actor.parameters(), strict=True):
            assert one.equal(other)
