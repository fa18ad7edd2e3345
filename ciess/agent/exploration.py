"""Exploration of sizes: the noise of Eq. 11 and the random walk of Eq. 12-13."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int16]
Kinds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Noise:
    """epsilon of Eq. 11, in dimensions.

    Attributes:
        kind: gaussian, ou (Ornstein-Uhlenbeck), uniform or none.
        shared: one draw for all entities.
        gaussian_sd: standard deviation of the gaussian noise.
        ou_theta: pull of the Ornstein-Uhlenbeck noise to 0.
        ou_dt: its time step.
        ou_sd: its standard deviation a unit of time.
        uniform_reach: largest uniform noise.
    """

    kind: str
    shared: bool
    gaussian_sd: float
    ou_theta: float
    ou_dt: float
    ou_sd: float
    uniform_reach: float

    def draw(self, before: Floats, generator: np.random.Generator, kinds: Kinds | None = None) -> Floats:
        """Noise of this iteration, float64[n], from that of the iteration before; 0 before an episode's first.

        Only Ornstein-Uhlenbeck noise (Uhlenbeck and Ornstein, 1930) does: x - theta x dt + sd sqrt(dt) N(0, 1).

        Args:
            before: float64[n], the same within a kind.
            generator: of the draws.
            kinds: int64[n], rows of one kind share a draw; None gives each its own.
        """
        if kinds is not None and not self.shared:
            first = np.unique(kinds, return_index=True)[1]
            found: Floats = self.draw(before[first], generator)[kinds] if len(kinds) else before.copy()
            return found
        count = 1 if self.shared else len(before)
        if self.kind == "none":
            noise: Floats = np.zeros(count)
        elif self.kind == "uniform":
            noise = generator.uniform(-self.uniform_reach, self.uniform_reach, count)
        elif self.kind == "gaussian":
            noise = self.gaussian_sd * generator.standard_normal(count)
        else:
            drift = (1 - self.ou_theta * self.ou_dt) * before[:count]
            noise = drift + self.ou_sd * self.ou_dt**0.5 * generator.standard_normal(count)
        return np.broadcast_to(noise, before.shape).copy()


def random_walk(
    starts: Sizes,
    length: int,
    reach: int,
    weights: str,
    max_size: int,
    generator: np.random.Generator,
    min_size: int = 1,
    kinds: Kinds | None = None,
) -> Sizes:
    """Sizes met on a walk from each start: int16[n, length + 1], the start first (Eq. 12-13).

    A step goes from d to any other size within `reach` of it and inside min_size..max_size, with a chance in proportion
    to its length (weights `distance`) or to the inverse of it (`inverse`). Where there is no other size the walk stays.
    Rows of one kind, int64[n] counted from 0, take the same draws, and so steps of one direction and length where
    their bounds allow it.
    """
    lengths = np.arange(1, reach + 1)
    # mass[k]: weight of all steps of length 1..k to one side.
    mass = np.concatenate([[0.0], np.cumsum(lengths if weights == "distance" else 1 / lengths)])
    met = np.empty((len(starts), length + 1), dtype=np.int16)
    met[:, 0] = starts
    for step in range(length):
        now = met[:, step].astype(np.int64)
        down = mass[np.minimum(reach, now - min_size)]
        up = mass[np.minimum(reach, max_size - now)]
        drawn = generator.random(len(starts)) if kinds is None else generator.random(int(kinds.max(initial=-1)) + 1)
        point = (drawn if kinds is None else drawn[kinds]) * (down + up)
        goes_up = point >= down
        inside = np.where(goes_up, point - down, point)
        taken = np.minimum(np.searchsorted(mass, inside, side="right"), reach)
        # Rounding may put a point on the far edge of its side: the longest step there is still the right one.
        taken = np.minimum(taken, np.where(goes_up, max_size - now, now - min_size))
        met[:, step + 1] = now + np.where(goes_up, taken, -taken)
    return met
