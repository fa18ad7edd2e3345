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
    return [TableSpec("full", masks.full(data.n, config.max_size), seed)]


def equal(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
) -> list[TableSpec]:
    """Equal sizes (ES) at each budget, by `equal_rule`; `round` is flagged where it breaks the budget."""
    tables = []
    degrees = data.degrees()
    for c in budgets:
        mask = masks.equal(data.n, config.max_size, c, config.equal_rule, degrees)
        over = mask.kept > masks.budget(data.n, config.max_size, c)
        variant = "" if config.equal_rule == "floor" else config.equal_rule
        tables.append(TableSpec("equal", mask, seed, c, flag="over budget" if over else None, variant=variant))
    return tables


def mixed(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
) -> list[TableSpec]:
    """Mixed and random sizes (MR) at each budget, drawn anew for each seed."""
    return [
        TableSpec(
            "mixed",
            masks.mixed(data.n, config.max_size, c, derive_seed(seed, "mixed", str(c)), config.mixed_fill),
            seed,
            c,
        )
        for c in budgets
    ]
