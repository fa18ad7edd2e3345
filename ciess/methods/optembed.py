"""OptEmbed (Lyu et al., CIKM 2022)."""

from collections.abc import Sequence
from fractions import Fraction

from ciess.data import Interactions
from ciess.fit_config import FitConfig
from ciess.methods.compressed import Compressed
from ciess.methods.learning import Learning


def optembed(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, learning: Learning | None = None
) -> list[Compressed]:
    """To be written."""
    raise NotImplementedError
