"""What every compression method offers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from ciess.config.fit import FitConfig
from ciess.config.models import WITHOUT_USERS
from ciess.data import Interactions
from ciess.errors import InputError
from ciess.methods.journal import Journal
from ciess.tables.spec import TableSpec


class Compress(Protocol):
    """The one contract of all methods."""

    def __call__(
        self,
        data: Interactions,
        config: FitConfig,
        budgets: Sequence[Fraction],
        seed: int,
        journal: Journal | None = None,
    ) -> list[TableSpec]:
        """The tables to train, one a budget, or one whatever the budgets where the sparsity is an outcome.

        journal: of a learned method, its checkpoint and history; without one nothing is kept.
        """


def anything(config: FitConfig) -> None:
    """Refuse no settings."""


def both_sides(config: FitConfig) -> None:
    """Refuse a backbone whose users have no rows that a method could learn sizes of.

    Args:
        config: settings of the fit.

    Raises:
        InputError: the backbone is one of these.
    """
    if config.backbone in WITHOUT_USERS:
        raise InputError(
            f"Found backbone {config.backbone} with a method that learns the rows of users and items, but its users "
            "have no rows. Expected full, equal, mixed or sized with it. Choose one of these, or another backbone."
        )


def any_data(config: FitConfig, data: Interactions) -> None:
    """Refuse no settings, whatever the data."""


@dataclass(frozen=True)
class Method:
    """A compression method.

    Attributes:
        compress: makes its tables.
        learned: it trains before it knows its masks.
        precise: it keeps the budgets that it is given.
        check: raises InputError for settings that it cannot use at all, before anything is trained or written.
        check_data: the same for settings that it cannot use with these data, seeds and sparsities.
    """

    compress: Compress
    learned: bool = False
    precise: bool = True
    check: Callable[[FitConfig], None] = anything
    check_data: Callable[[FitConfig, Interactions], None] = any_data
