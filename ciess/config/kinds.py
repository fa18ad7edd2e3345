"""Settings of a search over kinds of rows."""

from pydantic import PositiveFloat, PositiveInt

from ciess.config.types import Frozen


class KindsConfig(Frozen):
    """Sizes by kind: the rule of `sized` times a weight for each side and popularity bin, and powers of traits.

    Strategy `kinds` searches these vectors by CMA-ES (Hansen and Ostermeier, 2001), `random` draws them.
    """

    item_bins: PositiveInt | None = None
    """Bins of items by popularity rank, geometric from the head on; None: by their number, 12 for 4,000."""
    user_bins: PositiveInt | None = None
    """Bins of users by number of interactions; None: half as many as that rule gives."""
    population: PositiveInt = 12
    """Vectors of a generation, fitted side by side (4 + 3 ln d for d numbers; Hansen, 2016)."""
    deviation: PositiveFloat = 0.5
    """Standard deviation that the search begins with, of the logarithm of a bin's weight."""
    traits: bool = True
    """Beside its bin, a row is told by traits (`search/traits.py`): each has a number by which the logarithm of a row's
    weight moves with the trait, standardised within the bin."""
    trait_deviation: PositiveFloat = 0.3
    """Standard deviation that the search begins with, of the logarithm of a row's weight a deviation of a trait."""
    judged_users: PositiveInt = 8000
    """Users on whose validation pairs a fit is judged, drawn by a seed; all where there are no more."""
