"""How one side chooses sizes: actor, noise, random walk, critic (lines 8-9 of Algorithm 1)."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ciess.agent.exploration import Noise, random_walk
from ciess.agent.networks import Scale, actions_to_sizes, sizes_to_actions, whole_sizes
from ciess.agent.td3 import TD3, Floats
from ciess.config.search import SearchConfig
from ciess.seeds import derive_seed

Sizes = npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Choice:
    """Sizes of one side's n entities, stage by stage.

    Attributes:
        actor: float32[n], what the actor wants.
        noisy: float32[n], after noise (Eq. 11).
        walked: int16[n], after the walk and the critic's choice (Eq. 12-14).
        chosen: int16[n], what comes out; `walked`, unless the noise stands after it.
        noise: epsilon of Eq. 11, float64[n], from which the next iteration's goes on.
        walk_seconds: of the walk and the critic's choice.
    """

    actor: Floats
    noisy: Floats
    walked: Sizes
    chosen: Sizes
    noise: npt.NDArray[np.float64]
    walk_seconds: float


def choose(
    agent: TD3,
    config: SearchConfig,
    states: Floats,
    noise_before: npt.NDArray[np.float64],
    side: str,
    where: tuple[int, int, int],
    sizes: tuple[int, int] | None = None,
    kinds: npt.NDArray[np.int64] | None = None,
) -> Choice:
    """Sizes for states float32[n, k] (Eq. 11-14).

    With noise_place `after` the noise comes after the critic's choice, else before the walk.

    Args:
        agent: of the side.
        config: settings of the search.
        states: float32[n, k].
        noise_before: epsilon of the iteration before, float64[n].
        side: `users` or `items`; with `where` it seeds noise and walk.
        where: (lane, episode, iteration).
        sizes: smallest and largest size of this side, those of the config by default.
        kinds: int64[n], counted from 0: rows of one kind share noise and walk, and the critic's mean value over them
            chooses; None chooses row by row (the paper).

    Returns:
        the choice, stage by stage.
    """
    low, high = (config.min_size, config.max_size) if sizes is None else sizes
    noise = Noise(
        config.noise,
        config.shared_noise,
        config.gaussian_sd,
        config.ou_theta,
        config.ou_dt,
        config.ou_sd,
        config.uniform_reach,
    )
    # Shared noise is one draw for users and items together.
    drawn_by = "both" if config.shared_noise else side
    epsilon = noise.draw(noise_before, _generator(config.seed, "noise", drawn_by, *where), kinds)
    scale: Scale = config.agent.scale
    # Noise and walk are in places: as many as there are sizes, evenly spaced in actions. On the linear scale they are
    # the sizes.
    places = _Places(low, high, scale)
    acted = actions_to_sizes(agent.act(states), high, low)
    before = config.noise_place == "before"
    moved = np.clip(acted + epsilon, low, high).astype(np.float32) if before else acted
    walked = whole_sizes(moved, high, low)
    start = time.perf_counter()
    if config.random_walk:
        generator = _generator(config.seed, "walk", side, *where)
        met = random_walk(
            walked, config.walk_length, config.walk_reach, config.walk_weights, high, generator, low, kinds
        )
        # Of equal values the size met first is taken: the start, where the walk brought nothing.
        best = _over_kinds(agent.values(states, sizes_to_actions(met, high, low)), kinds).argmax(axis=1)
        walked = np.take_along_axis(met, best[:, None], axis=1)[:, 0]
    walk_seconds = time.perf_counter() - start
    chosen = walked
    if not before:
        moved = np.clip(walked + epsilon, low, high).astype(np.float32)
        chosen = whole_sizes(moved, high, low)
    actor, noisy = places.sizes(acted), places.sizes(moved)
    walked, chosen = places.whole(walked), places.whole(chosen)
    return Choice(actor, noisy, walked, chosen, epsilon, walk_seconds)


@dataclass(frozen=True)
class _Places:
    """Between places low..high and the sizes that stand there."""

    low: int
    high: int
    scale: Scale

    def sizes(self, places: npt.NDArray[np.generic]) -> Floats:
        """Real-valued sizes of places [n], float32[n]."""
        if self.scale == "linear":
            return places.astype(np.float32)
        return actions_to_sizes(sizes_to_actions(places, self.high, self.low), self.high, self.low, self.scale)

    def whole(self, places: Sizes) -> Sizes:
        """Whole sizes of whole places, int16[n]."""
        return places if self.scale == "linear" else whole_sizes(self.sizes(places), self.high, self.low)


def _over_kinds(values: Floats, kinds: npt.NDArray[np.int64] | None) -> npt.NDArray[np.floating]:
    """Values float32[n, m], or for each row their means over the rows of its kind."""
    if kinds is None or not len(kinds):
        return values
    counts = np.bincount(kinds)
    sums = np.stack([np.bincount(kinds, weights=column) for column in values.T.astype(np.float64)], axis=1)
    means: npt.NDArray[np.floating] = (sums / np.maximum(counts, 1)[:, None])[kinds]
    return means


def _generator(*content: int | str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed(*content)))
