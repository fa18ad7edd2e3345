"""Sizes by rule that stand beside a search: they are fitted before its first round, and stand for choice."""

from collections.abc import Iterator, Mapping

from ciess import masks
from ciess.config.search import SearchConfig
from ciess.masks.mask import PrefixMask
from ciess.masks.popularity import sized_mask
from ciess.search.environment import Environment
from ciess.search.proposals import Proposal
from ciess.search.strategies.strategy import Plan
from ciess.training.starts.rule import Rule


def plans_beside(config: SearchConfig, environment: Environment, rules: Mapping[float, Rule]) -> list[Plan]:
    """Sizes by rule at each budget, of each kind once: equal ones, and `sized` where its rule is known.

    Args:
        config: settings of the search.
        environment: whose rows get sizes.
        rules: of `sized`, by budget.

    Returns:
        plans of episode 0.
    """
    found: dict[tuple[str, bytes], Plan] = {}
    for origin, mask, budget in _sizes_by_rule(config, environment, rules):
        key = (origin, mask.sizes.tobytes())
        if key not in found:
            start = rules[budget].start if budget in rules else None
            label = config.targets.index(budget) if config.targets else 0
            found[key] = Plan(Proposal(0, 0, len(found) + 1, mask.sizes, start), origin, budget, label)
    return list(found.values())


def _sizes_by_rule(
    config: SearchConfig, environment: Environment, rules: Mapping[float, Rule]
) -> Iterator[tuple[str, PrefixMask, float]]:
    n_users, bounds, degrees = environment.n_users, environment.bounds, environment.degrees
    for budget in config.budgets if config.include_equal else ():
        for mask in masks.equals(config.max_size, budget, degrees, bounds):
            yield "equal", mask, budget
    for budget, rule in rules.items():
        share, popularity = rule.item_share, rule.popularity
        yield "sized", sized_mask(degrees, n_users, config.max_size, budget, bounds, share, popularity), budget
