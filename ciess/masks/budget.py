"""Sparsity in exact arithmetic, and how many entries a budget allows (Eq. 5)."""

from fractions import Fraction

from ciess.errors import BudgetError
from ciess.masks.bounds import SizeBounds
from ciess.masks.mask import Mask


def sparsity(mask: Mask) -> Fraction:
    """Share of the table that is removed: the left side of Eq. 5, exact."""
    return 1 - Fraction(mask.kept, mask.total)


def exact(sparsity: float | str | Fraction) -> Fraction:
    """The sparsity that was written: 0.9 is 9/10, not the nearest binary fraction."""
    return sparsity if isinstance(sparsity, Fraction) else Fraction(str(sparsity))


def budget(n: int, max_size: int, sparsity: float | str | Fraction, bounds: SizeBounds | None = None) -> int:
    """Entries that may be kept at this sparsity: floor((1 - c) n d_max) (Eq. 5).

    Args:
        n: rows of the table.
        max_size: columns of the full table, d_max.
        sparsity: c, share of the table that is removed.
        bounds: of the sizes of n rows; without them every row keeps one column or more.

    Returns:
        number of entries.

    Raises:
        BudgetError: the sparsity lies outside (0, 1), or not even the smallest sizes fit, or nothing at all.
    """
    c = exact(sparsity)
    if not 0 < c < 1:
        raise BudgetError(
            f"The sparsity is {float(c):g}, but it must lie between 0 and 1: it is the share of the table that is "
            "removed, 0.9 for a tenth of the parameters. Choose such a share."
        )
    entries = int((1 - c) * n * max_size)
    least = n if bounds is None else max(1, bounds.least)
    if entries < least:
        largest = float(Fraction(10_000 * (n * max_size - least) // (n * max_size), 10_000))  # can be met
        rows = n if bounds is None else int((bounds.low > 0).sum())
        if rows == 0:
            kept = "a table keeps one or more"
        elif least == rows:
            kept = f"every row keeps at least 1 of its {max_size} dimensions"
            kept = kept if rows == n else f"each of {rows:,} rows keeps at least 1 of its {max_size} dimensions"
        else:
            kept = f"the smallest sizes keep {least:,}"
        raise BudgetError(
            f"A sparsity of {float(c):g} leaves {entries:,} parameters for {n:,} rows, but {kept}. "
            f"Choose a sparsity of at most {largest:g}."
        )
    return entries
