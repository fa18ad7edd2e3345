"""How one side chooses sizes: actor, noise, random walk, critic (lines 8-9 of Algorithm 1)."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ciess.agent.exploration import Noise, random_walk
from ciess.agent.networks import actions_to_sizes, sizes_to_actions, whole_sizes
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
    epsilon = noise.draw(noise_before, _generator(config.seed, "noise", drawn_by, *where))
    actor = actions_to_sizes(agent.act(states), high, low)
    before = config.noise_place == "before"
    noisy = np.clip(actor + epsilon, low, high).astype(np.float32) if before else actor
    walked = whole_sizes(noisy, high, low)
    start = time.perf_counter()
    if config.random_walk:
        generator = _generator(config.seed, "walk", side, *where)
        met = random_walk(walked, config.walk_length, config.walk_reach, config.walk_weights, high, generator, low)
        # Of equal values the size met first is taken: the start, where the walk brought nothing.
        best = agent.values(states, sizes_to_actions(met, high, low)).argmax(axis=1)
        walked = np.take_along_axis(met, best[:, None], axis=1)[:, 0]
    walk_seconds = time.perf_counter() - start
    chosen = walked
    if not before:
        noisy = np.clip(walked + epsilon, low, high).astype(np.float32)
        chosen = whole_sizes(noisy, high, low)
    return Choice(actor, noisy, walked, chosen, epsilon, walk_seconds)


def _generator(*content: int | str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed(*content)))
