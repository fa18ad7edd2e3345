"""Agents that begin where the best mask stands, and agents that take over from kinds."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_searches import MAX_SIZE, contents, finish, fitted, through_files, world

from ciess.agent.networks import sizes_to_actions
from ciess.config.search import SearchConfig
from ciess.search.proposals import Outcome, Proposal
from ciess.search.search import Search
from ciess.training.starts.rule import Rule

RULES = {0.5: Rule(0.5, 0.5), 0.75: Rule(0.5, 0.5)}


def config(**values: Any) -> SearchConfig:
    agent = {"hidden": 16, "batch_size": 32, "episodes_from": "best", "gradient_steps": 2} | values.pop("agent", {})
    plain = {"sparsity": (0.5,), "strategy": "td3", "fits": 20, "max_size": MAX_SIZE, "min_size": 1, "agent": agent}
    return SearchConfig(**plain | values)


def judged(proposal: Proposal) -> Outcome:
    """As `fitted`, and judged on another half, too."""
    found = fitted(proposal, world())
    return Outcome(*proposal.slot, found.quality, choice_quality=float(found.quality.mean()))


def with_kinds(**values: Any) -> SearchConfig:
    kinds = {"population": 4, "item_bins": 3, "user_bins": 2}
    agent = {"begin": "kinds", "kinds_share": 0.5} | values.pop("agent", {})
    return config(**{"fits": 40, "kinds": kinds, "agent": agent} | values)


def test_an_episode_begins_with_the_best_mask_so_far() -> None:
    search = Search(config(iterations=4), world(), RULES)
    best: tuple[float, np.ndarray] | None = None
    while proposals := search.ask():
        for proposal in proposals:
            if proposal.iteration == 1 and proposal.episode:
                lane = search._strategy._lanes[0]
                assert best is not None and np.array_equal(lane.sizes, best[1])
            outcome = judged(proposal)
            search.tell(outcome)
            quality = float(outcome.quality[world().counted].astype(np.float64).mean())
            if best is None or quality > best[0] + 1e-7:
                best = (quality, proposal.sizes)


def test_actors_that_are_held_to_the_best_stay_near_it() -> None:
    def distance(weight: float) -> float:
        agent = {"held_to_best": weight, "gradient_steps": 30, "warm_up": 0, "critic_learning_rate": 0.01}
        search = finish(Search(config(fits=40, iterations=4, agent=agent), world(), RULES), judged)
        strategy = search._strategy
        best = strategy._elites[0]
        found = []
        for side, rows in world().sides.items():
            state = world().state(rows, best.sizes[rows], best.ratios[rows])
            wanted = sizes_to_actions(best.sizes[rows], MAX_SIZE, 1, "log")
            found.append(np.abs(strategy._learner._agents[side].act(state) - wanted).mean())
        return float(np.mean(found))

    assert distance(3.0) < 0.5 * distance(0.0)


def test_kinds_make_their_share_of_the_fits_and_agents_the_rest() -> None:
    search = Search(with_kinds(), world(), RULES)
    finish(search, judged)
    rows = search.rows
    made_by_agents = [row["items_critic_loss"] is not None for row in rows]
    assert made_by_agents == [False] * 20 + [True] * 20
    assert len({(row["episode"], row["iteration"], row["lane"]) for row in rows}) == 40


def test_actors_take_over_the_best_of_kinds() -> None:
    search = Search(with_kinds(agent={"held_to_best": 1.0}), world(), RULES)
    while search.fits_done < len(search._beside) + 20:
        for proposal in search.ask():
            search.tell(judged(proposal))
    strategy = search._strategy
    best = max(search.visited, key=lambda candidate: candidate.quality)
    assert np.array_equal(strategy._elites[0].sizes, best.mask.sizes)
    errors = []
    for side, rows in world().sides.items():
        state = world().state(rows, best.mask.sizes[rows], strategy._elites[0].ratios[rows])
        wanted = sizes_to_actions(best.mask.sizes[rows], MAX_SIZE, 1, "log")
        errors.append(np.abs(strategy._learner._agents[side].act(state) - wanted).mean())
    assert np.mean(errors) < 0.15
    # Its fits are in the buffers: the agents have something to learn from at once.
    assert len(strategy._learner._replays["items"].state_dict()["label"]) == 20


@pytest.mark.parametrize("stop", [9, 22, 25, 33])
@pytest.mark.parametrize("sparsity", [(0.5,), (0.5, 0.75)])
def test_a_search_goes_on_with_equal_bits_before_at_and_after_the_change(
    sparsity: tuple[float, ...], stop: int
) -> None:
    settings = with_kinds(sparsity=sparsity, agent={"held_to_best": 1.0})
    undisturbed = finish(Search(settings, world(), RULES), judged)
    first, told = Search(settings, world(), RULES), 0
    while told < stop:
        for proposal in first.ask()[: stop - told]:
            first.tell(judged(proposal))
            told += 1
    second = Search(settings, world(), RULES)
    second.load_state_dict(through_files(first.state_dict()))
    assert contents(finish(second, judged)) == contents(undisturbed)


def test_a_search_that_is_made_longer_leaves_its_agents_at_work() -> None:
    short = finish(Search(with_kinds(), world(), RULES), judged)
    longer = Search(with_kinds(fits=60), world(), RULES)
    longer.load_state_dict(through_files(short.state_dict()))
    rows = finish(longer, judged).rows
    assert [row["items_critic_loss"] is not None for row in rows] == [False] * 20 + [True] * 40


def test_each_sparsity_gets_as_many_fits_of_kinds() -> None:
    search = finish(Search(with_kinds(sparsity=(0.5, 0.75)), world(), RULES), judged)
    by_kinds = [row["target_sparsity"] for row in search.rows if row["items_critic_loss"] is None]
    assert by_kinds.count(0.5) == by_kinds.count(0.75) == 20
    by_agents = [row["target_sparsity"] for row in search.rows if row["items_critic_loss"] is not None]
    assert by_agents.count(0.5) == by_agents.count(0.75) == 20


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"agent": {"begin": "kinds"}},
            "agents begin with kinds at a budget, but found no sparsity; give --sparsity, such as 0.95",
        ),
        (
            {"sparsity": (0.9,), "strategy": "td3", "iterations": 5, "agent": {"begin": "kinds"}},
            "found 12 lanes of 5 iterations with strategy td3, whose rounds are generations; give --kinds.population "
            "and --fits instead",
        ),
        (
            {"sparsity": (0.9,), "strategy": "td3", "fits": 12, "agent": {"begin": "kinds"}},
            "found 1 of 1 generations for kinds before agents take over; expected one or more for each; give more "
            "--fits, or another --agent.kinds-share",
        ),
        (
            {"sparsity": (0.9,), "strategy": "td3", "fits": 120, "agent": {"begin": "kinds", "kinds_share": 0.01}},
            "found 0 of 10 generations for kinds before agents take over; expected one or more for each; give more "
            "--fits, or another --agent.kinds-share",
        ),
    ],
)
def test_what_does_not_go_with_kinds_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SearchConfig(**values)
    assert words in str(refused.value)
