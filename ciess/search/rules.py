"""Where a search at given budgets begins: the rule of `sized`, found on the half of validation that it sees."""

import sys

from ciess import masks
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.search.short_fit import CLOSED_FORM
from ciess.seeds import derive_seed
from ciess.storage.storage import Storage
from ciess.training.prepared import prepare
from ciess.training.starts.rule import Rule, tuned_rule
from ciess.training.starts.start import Start

FILE = "rules.json"
"""Of a run directory: a rule a budget."""


def search_rules(data: Interactions, config: SearchConfig, run: Storage) -> dict[float, Rule]:
    """The rules that a search begins with, by budget; none without a sparsity.

    Args:
        data: interactions with a validation part.
        config: settings of the search.
        run: its run directory, where they are kept and found again.

    Returns:
        a rule a budget.
    """
    if not config.sparsity:
        return {}
    if not run.exists(FILE):
        found: list[tuple[float, Rule]] = []
        with cpu_threads(config.threads):
            prepared = prepare(data, resolve_device(config.device))
            for budget in sorted(config.budgets):
                before = [rule for _, rule in found[-1:]]
                seed = derive_seed(config.seed, "rules")
                rule = tuned_rule(data, prepared, config, masks.exact(budget), seed, before, by_half=config.halves)
                found.append((budget, rule))
                print(f"sized at {100 * budget:g} %: {describe_rule(rule)}", file=sys.stderr, flush=True)
        run.write_json(FILE, [{"sparsity": budget, **rule.described()} for budget, rule in found])
    closed = config.short_fit.start in CLOSED_FORM
    rules = {}
    for row in run.read_json(FILE):
        rule = Rule.of({name: value for name, value in row.items() if name != "sparsity"})
        # Short fits that begin otherwise take its sizes alone.
        rules[row["sparsity"]] = rule if closed else Rule(rule.item_share, rule.popularity, None, rule.judged)
    return rules


def describe_rule(rule: Rule) -> str:
    """In words."""
    words = [f"{100 * rule.item_share:.0f} % to the items", f"sizes ~ popularity^{rule.popularity:g}"]
    words += [] if rule.start is None else [describe_start(rule.start)]
    return ", ".join(words) + ("" if rule.judged is None else f"; quality {rule.judged:.4f}")


def describe_start(start: Start) -> str:
    """In words: `spectral (side items, exponent 0.4)`."""
    described = {name: value for name, value in start.described().items() if name != "name"}
    numbers = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in described.items()
    ]
    return start.name + (f" ({', '.join(numbers).replace('_', ' ')})" if numbers else "")
