"""Strategies over kinds of rows: what they propose, learn, remember, and whom they beat."""

import functools
import json
from typing import Any

import numpy as np
import pytest

from ciess.config.search import SearchConfig
from ciess.data import Pairs
from ciess.errors import SearchError
from ciess.search.candidates import sized_at
from ciess.search.environment import Environment
from ciess.search.proposals import Outcome, Proposal
from ciess.search.search import Search
from ciess.training.starts.rule import Rule
from ciess.training.starts.start import Start

RULES = {budget: Rule(0.5, 0.5, Start("spectral", "both", 0.1, 0.5)) for budget in (0.5, 0.75)}


N_USERS, N_ITEMS, MAX_SIZE = 40, 60, 16


@functools.cache
def world() -> Environment:
    """Items from popular to rare, so that their bins are their order."""
    generator = np.random.default_rng(3)
    met = generator.random((N_USERS, N_ITEMS)) < np.linspace(0.9, 0.05, N_ITEMS)
    reference = np.full(N_USERS + N_ITEMS, 0.8, np.float32)
    train = Pairs.sorted(*np.nonzero(met))
    return Environment(train, N_USERS, N_ITEMS, MAX_SIZE, reference, np.ones(N_USERS, np.bool_))


def mean_size(proposal: Proposal, items: slice) -> float:
    """Of some of the items, by popularity, as a share of the largest."""
    degrees = world().degrees[N_USERS:]
    order = np.argsort(-degrees, kind="stable")
    return float(proposal.sizes[N_USERS:][order][items].mean()) / MAX_SIZE


def config(**values: Any) -> SearchConfig:
    kinds = {"population": 6, "item_bins": 3, "user_bins": 2}
    return SearchConfig(**{"sparsity": (0.5,), "fits": 60, "max_size": 16, "min_size": 1, "kinds": kinds} | values)


def told(proposal: Proposal, searched_by: float, chosen_by: float) -> Outcome:
    return Outcome(*proposal.slot, np.full(N_USERS, searched_by, np.float32), choice_quality=chosen_by)


def judged(proposal: Proposal) -> Outcome:
    """The tail, and nothing else, is worth its dimensions."""
    value = mean_size(proposal, slice(30, None))
    return told(proposal, 0.9 * value, 0.8 * value)


def run(search: Search, rounds: int = 10**6) -> Search:
    while rounds and (proposals := search.ask()):
        for proposal in proposals:
            search.tell(judged(proposal))
        rounds -= 1
    return search


def best(search: Search) -> float:
    return max(candidate.quality for candidate in search.visited if candidate.origin == "search")


@pytest.mark.parametrize("strategy", ["kinds", "random"])
def test_generations_serve_the_budgets_in_turn_and_all_fits_are_made(strategy: str) -> None:
    search = run(Search(config(sparsity=(0.5, 0.75), fits=30, strategy=strategy), world(), RULES))
    rows = search.history.to_pylist()
    assert [row["target_sparsity"] for row in rows] == [b for _ in range(5) for b in (0.5, 0.75) for _ in range(6)]
    assert search.fits_done == search.fits and search.done
    # Rows use their budget up; equal and sized sizes stand beside.
    assert all(row["sparsity"] == pytest.approx(row["target_sparsity"], abs=1 / world().n) for row in rows)
    assert {c.origin for c in search.visited} == {"search", "equal", "sized"}
    assert all(candidate.start is not None for candidate in search.visited)
    assert [row["choice_quality"] for row in rows] == pytest.approx([row["quality"] * 8 / 9 for row in rows], rel=1e-5)


def test_cma_es_beats_draws_and_the_rule_where_a_bin_deserves_more() -> None:
    learned = run(Search(config(fits=120), world(), RULES))
    drawn = run(Search(config(fits=120, strategy="random"), world(), RULES))
    sized = next(candidate for candidate in learned.visited if candidate.origin == "sized")
    assert best(learned) > best(drawn) > sized.quality


@pytest.mark.parametrize("strategy", ["kinds", "random"])
def test_a_search_that_was_put_down_ends_as_one_that_was_not(strategy: str) -> None:
    settings = config(sparsity=(0.5, 0.75), fits=24, strategy=strategy)
    whole = run(Search(settings, world(), RULES))
    begun = run(Search(settings, world(), RULES), rounds=4)
    for proposal in begun.ask()[:3]:  # in the middle of a generation
        begun.tell(judged(proposal))
    state = begun.state_dict()
    values = json.loads(json.dumps(state["values"]))
    again = Search(settings, world(), RULES)
    again.load_state_dict({"arrays": state["arrays"], "values": values})
    run(again)
    assert [c.mask.sizes.tobytes() for c in again.visited] == [c.mask.sizes.tobytes() for c in whole.visited]
    assert [c.start for c in again.visited] == [c.start for c in whole.visited]
    assert [c.choice_quality for c in again.visited] == [c.choice_quality for c in whole.visited]


def traited() -> Environment:
    """Half of the items, whatever their popularity, have a trait; another trait is the same for all."""
    plain = world()
    traits = np.zeros((N_USERS + N_ITEMS, 2), np.float32)
    traits[N_USERS::2, 0] = 1.0
    return Environment(
        plain.train, N_USERS, N_ITEMS, MAX_SIZE, plain.reference, np.ones(N_USERS, np.bool_), traits=traits
    )


def with_trait(proposal: Proposal) -> Outcome:
    """Items with the trait, and nothing else, are worth their dimensions, up to 12 each."""
    value = float(np.minimum(proposal.sizes[N_USERS::2], 12).mean()) / MAX_SIZE
    return told(proposal, 0.9 * value, 0.8 * value)


def test_the_first_generation_tries_each_trait_both_ways() -> None:
    search = Search(config(), traited(), RULES)
    for proposal in search.ask():
        search.tell(with_trait(proposal))
    up, down, same, equal, *_ = (proposal.sizes[N_USERS:].astype(float) for proposal in search.ask())
    assert up[::2].mean() > 1.5 * up[1::2].mean() and down[1::2].mean() > 1.5 * down[::2].mean()
    # Where a trait tells nobody apart, its number changes nothing.
    assert np.array_equal(same, equal)


def test_rows_with_a_trait_that_pays_get_more_within_two_generations() -> None:
    search = Search(config(), traited(), RULES)
    while search.fits_done < len(search._beside) + 12:
        for proposal in search.ask():
            search.tell(with_trait(proposal))
    later = np.mean([c.mask.sizes[N_USERS:] for c in search.visited[-6:]], axis=0)
    assert later[::2].mean() > 1.4 * later[1::2].mean()
    plain = Search(config(kinds={"population": 6, "traits": False}), traited(), RULES)
    assert not plain._strategy.kinds.of_traits


def test_traits_survive_a_kill_in_the_first_generation_and_after() -> None:
    whole = Search(config(fits=24), traited(), RULES)
    while proposals := whole.ask():
        for proposal in proposals:
            whole.tell(with_trait(proposal))
    for stop in (len(whole._beside) + 3, len(whole._beside) + 8):
        begun = Search(config(fits=24), traited(), RULES)
        while begun.fits_done < stop:
            for proposal in begun.ask()[: stop - begun.fits_done]:
                begun.tell(with_trait(proposal))
        again, state = Search(config(fits=24), traited(), RULES), begun.state_dict()
        values = json.loads(json.dumps(state["values"]))
        again.load_state_dict({"arrays": state["arrays"], "values": values})
        while proposals := again.ask():
            for proposal in proposals:
                again.tell(with_trait(proposal))
        assert [c.mask.sizes.tobytes() for c in again.visited] == [c.mask.sizes.tobytes() for c in whole.visited]


def test_the_order_in_which_outcomes_arrive_changes_nothing() -> None:
    plain = run(Search(config(fits=24), world(), RULES))
    other = Search(config(fits=24), world(), RULES)
    while proposals := other.ask():
        for proposal in reversed(proposals):
            other.tell(judged(proposal))
    assert [c.mask.sizes.tobytes() for c in other.visited] == [c.mask.sizes.tobytes() for c in plain.visited]


def test_a_search_may_be_made_longer() -> None:
    short = run(Search(config(fits=24), world(), RULES))
    longer = Search(config(fits=48), world(), RULES)
    state = short.state_dict()
    longer.load_state_dict(state)
    whole = run(Search(config(fits=48), world(), RULES))
    assert [c.mask.sizes.tobytes() for c in run(longer).visited] == [c.mask.sizes.tobytes() for c in whole.visited]


def test_a_search_that_chooses_on_its_own_pairs_over_fits_and_one_on_others_does_not() -> None:
    """Planted: the tail is worth its dimensions on all pairs, the head on those alone that are searched by."""

    def truth(proposal: Proposal) -> float:
        tail, head = mean_size(proposal, slice(30, None)), mean_size(proposal, slice(0, 10))
        return tail / (tail + head)

    def outcome(proposal: Proposal) -> Outcome:
        true = truth(proposal)
        return told(proposal, 0.1 * true + 0.6 * (1 - true), true)

    def found(by: str) -> tuple[float, float]:
        search = Search(config(fits=180, candidate_quality=by, candidates=1), world(), RULES)
        while proposals := search.ask():
            for proposal in proposals:
                search.tell(outcome(proposal))
        (chosen,) = search.candidates(0.5)
        sized = next(candidate for candidate in search.visited if candidate.origin == "sized")
        return truth(Proposal(0, 0, 1, chosen.mask.sizes)), truth(Proposal(0, 0, 1, sized.mask.sizes))

    own, sized = found("all")
    others, _ = found("choice")
    # Chosen by the pairs that it was searched by, the search is worse than no search at all.
    assert own < sized < others


def test_sized_stands_beside_equal_sizes_where_they_are_the_same() -> None:
    """Popularity^0 with the sides' own shares is filled equal sizes."""
    rule = Rule(N_ITEMS / (N_USERS + N_ITEMS), 0.0, RULES[0.5].start)
    search = run(Search(config(fits=6), world(), {0.5: rule}))
    beside = [candidate for candidate in search.visited if candidate.origin != "search"]
    assert len({candidate.mask.sizes.tobytes() for candidate in beside}) < len(beside)
    assert sized_at(search.visited, 0.5) is next(c for c in beside if c.origin == "sized")


def test_sized_at_a_budget_is_what_keeps_it_and_most_of_it() -> None:
    search = run(Search(config(sparsity=(0.5, 0.75), fits=6), world(), RULES))
    found = [sized_at(search.visited, budget) for budget in (0.4, 0.5, 0.6, 0.75, 0.9)]
    assert [None if one is None else round(one.sparsity, 2) for one in found] == [0.5, 0.5, 0.75, 0.75, None]


def test_a_strategy_without_its_rules_is_refused() -> None:
    with pytest.raises(SearchError) as raised:
        Search(config(), world())
    assert str(raised.value) == (
        "Strategy kinds begins at the rule of sized, but none was given for 0.5. Expected one a budget. Give rules=, "
        "as search_rules(data, config) finds them."
    )
