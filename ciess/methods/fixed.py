"""Sizes that need no search: the full table, equal sizes, and mixed random sizes (section 3.1)."""

from collections.abc import Sequence
from fractions import Fraction

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.methods.journal import Journal
from ciess.seeds import derive_seed
from ciess.tables.spec import TableSpec


def full(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
) -> list[TableSpec]:
    """The uncompressed table, once whatever the budgets."""
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    return [TableSpec("full", masks.full(data.n, config.max_size, bounds), seed)]


def equal(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
) -> list[TableSpec]:
    """Equal sizes (ES) at each budget, by `equal_rule`; `round` is flagged where it breaks the budget.

    Where not one dimension a row fits, the rule is `filled`: one for the most popular.
    """
    tables = []
    degrees = data.degrees()
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    for c in budgets:
        rule = config.equal_rule
        mask = masks.equal(data.n, config.max_size, c, rule, degrees, bounds)
        if mask.kept == 0:
            rule = "filled"
            mask = masks.equal(data.n, config.max_size, c, rule, degrees, bounds)
        over = mask.kept > masks.budget(data.n, config.max_size, c, bounds)
        variant = "" if rule == "floor" else rule
        tables.append(TableSpec("equal", mask, seed, c, flag="over budget" if over else None, variant=variant))
    return tables


def mixed(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
) -> list[TableSpec]:
    """Mixed and random sizes (MR) at each budget, drawn anew for each seed."""
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    seeds = {c: derive_seed(seed, "mixed", str(c)) for c in budgets}
    return [
        TableSpec("mixed", masks.mixed(data.n, config.max_size, c, seeds[c], config.mixed_fill, bounds), seed, c)
        for c in budgets
    ]
