"""Sizes by popularity: what anyone can have without a search, in seconds."""

import functools
from collections.abc import Sequence
from fractions import Fraction

from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.methods.journal import Journal
from ciess.seeds import derive_seed
from ciess.tables.spec import TableSpec
from ciess.training.prepared import prepare
from ciess.training.starts.rule import Rule, tuned_rule


def sized(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
) -> list[TableSpec]:
    """One mask a budget: share of the sides, exponent, and the numbers of a spectral start by validation.

    A climb over a small grid from two or three corners; each point is judged untrained. A budget begins where the one
    before ended, too.
    """
    journal = Journal() if journal is None else journal
    found: list[TableSpec] = []
    before: list[Rule] = []
    with cpu_threads(config.threads):
        prepared = prepare(data, resolve_device(config.device))
        for budget in sorted(budgets):
            note = functools.partial(journal.note, stage=f"sized {float(100 * budget):g} %")
            rule = tuned_rule(data, prepared, config, budget, derive_seed(seed, "sized"), before, note)
            before = [rule]
            facts = {"item_share": rule.item_share, "popularity": rule.popularity, "judged": rule.judged}
            mask = rule.mask(data, config, budget)
            found.append(TableSpec("sized", mask, seed, budget, start=rule.start, search=facts))
    return sorted(found, key=lambda spec: list(budgets).index(spec.target_sparsity or budgets[0]))
