"""Settings of selective retraining."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ciess.config.types import Frozen, Seed, Sparsity


class RetrainConfig(Frozen):
    """Selective retraining of the best masks of a search (section 2.3)."""

    sparsity: Annotated[tuple[Sparsity, ...], Field(min_length=1)] | None = None
    """Budgets c of Eq. 15 (section 3.2); None takes those of the search."""
    candidates: PositiveInt | None = None
    """l: masks a budget that are retrained; None takes the search's own number."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Seeds of the retrainings. Not given in the paper."""
    compare: tuple[Literal["full", "equal", "mixed", "sized"], ...] | None = None
    """Methods that are trained and tested beside the candidates by the same protocol; None takes full, equal and mixed,
    or sized in the place of mixed where the search was given a sparsity."""
    halving: bool = True
    """Where validation is cut in two, half of the searched masks go on after a quarter of the epochs, and half of these
    after half of them (successive halving, Jamieson and Talwalkar, AISTATS 2016); without it, and in sweeps, where
    they train side by side, all train to the end."""
    project: bool = False
    """Where no mask meets a budget, project the best one to it."""
    refit: bool = True
    """Train on training and validation data for the chosen number of epochs before the test; else test as chosen."""
