"""What crosses the wire between a search and whoever trains: sizes go out, qualities of users come back."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ciess.training.starts.start import Start

Slot = tuple[int, int, int]
"""(lane, episode, iteration); the latter two count from 1, and episode 0 holds what stands beside the search."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """Sizes to fit.

    Attributes:
        lane: which of the episodes side by side, from 0.
        episode: counted from 1; 0 for what stands beside the search.
        iteration: counted from 1.
        sizes: int16[n], users first.
        start: of the short fit, None for that of the config.
    """

    lane: int
    episode: int
    iteration: int
    sizes: npt.NDArray[np.int16]
    start: Start | None = None

    @property
    def slot(self) -> Slot:
        """Where in the search it stands."""
        return self.lane, self.episode, self.iteration


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a short fit of a proposal found.

    Attributes:
        lane: of the proposal.
        episode: of the proposal.
        iteration: of the proposal.
        quality: eval(e_u | E * M) of Eq. 8 on validation, or on the half that is searched by, float32[n_users].
        fit_seconds: of training.
        evaluation_seconds: of ranking on validation.
        choice_quality: mean of Eq. 8 on the half that is chosen by, None where validation is not cut.
    """

    lane: int
    episode: int
    iteration: int
    quality: npt.NDArray[np.float32]
    fit_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    choice_quality: float | None = None

    @property
    def slot(self) -> Slot:
        """The proposal it belongs to."""
        return self.lane, self.episode, self.iteration
