"""The two agents of a search: what they choose, remember and learn, and the price that they pay for memory."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ciess.agent.networks import sizes_to_actions
from ciess.agent.policy import Choice, choose
from ciess.agent.replay import Replay
from ciess.agent.td3 import TD3
from ciess.config.search import SearchConfig
from ciess.errors import FitError
from ciess.search.environment import Environment
from ciess.search.kinds import bin_count, bins_of
from ciess.search.proposals import Slot
from ciess.seeds import derive_seed

Arrays = dict[str, npt.NDArray[Any]]

TRANSITION = {"sizes_before": np.int16, "ratios_before": np.float32, "sizes": np.int16, "ratios": np.float32}
"""What a transition holds of an entity (section 2.2.4): sizes and quality ratios of two iterations, from which both
states follow; the action is the second size. The reward follows from `raw`, float32, and the price when it is drawn."""


@dataclass(frozen=True, eq=False)
class Known:
    """Sizes that are good in a state.

    Attributes:
        label: position of the target among the config's.
        before: sizes of the iteration before, int16[n].
        ratios: quality ratios (Eq. 7) of the iteration before, float32[n].
        sizes: int16[n].
    """

    label: int
    before: npt.NDArray[np.int16]
    ratios: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.int16]


class Learner:
    """An agent and a replay buffer for users and for items, and a memory weight for every target."""

    def __init__(self, config: SearchConfig, environment: Environment) -> None:
        """Agents whose weights are drawn."""
        self.config, self.environment = config, environment
        self.prices = [config.memory_weight] * max(1, len(config.targets))
        self._gain = "raw" if config.reward_quality == "raw" else "ratios"
        columns = {name: np.dtype(dtype) for name, dtype in (TRANSITION | {self._gain: np.float32}).items()}
        state_width = (4 if len(config.targets) > 1 else 3) + environment.rich * environment.traits.shape[1]
        self._kinds: dict[str, npt.NDArray[np.int64] | None] = {}
        self._agents: dict[str, TD3] = {}
        self._replays: dict[str, Replay] = {}
        for side, rows in environment.sides.items():
            degrees = environment.degrees[rows]
            by_kind = config.exploration == "kind"
            self._kinds[side] = bins_of(degrees, bin_count(len(degrees))) if by_kind else None
            seed = derive_seed(config.seed, "networks", side)
            self._agents[side] = TD3(config.agent, state_width, config.max_size, seed)
            self._replays[side] = Replay(config.agent.replay_iterations, columns, environment.learnable[rows])

    def imitate(self, told: Sequence[Known]) -> None:
        """Fit the actors to sizes that are known to be good.

        Args:
            told: states that they are known in, and these sizes.
        """
        for side, rows in self.environment.sides.items():
            low, high = self.environment.sizes_of(side)
            if high == low or rows.stop == rows.start:
                continue
            parts = [self._known(side, known) for known in told]
            states, actions = (np.concatenate(column) for column in zip(*parts, strict=True))
            generator = np.random.Generator(np.random.PCG64(derive_seed(self.config.seed, "imitation", side)))
            self._agents[side].imitate(states, actions, generator)

    def _known(
        self, side: str, known: Known, among: npt.NDArray[np.int64] | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """States float32[m, k] and actions float32[m] of a side's rows, or of those `among` them, int64[m]."""
        environment, rows = self.environment, self.environment.sides[side]
        chosen = np.arange(rows.start, rows.stop) if among is None else among + rows.start
        low, high = environment.sizes_of(side)
        target = self.config.targets[known.label] if len(self.config.targets) > 1 else None
        states = environment.state(chosen, known.before[chosen], known.ratios[chosen], target)
        return states, sizes_to_actions(known.sizes[chosen], high, low, self.config.agent.scale)

    def choose(
        self,
        slot: Slot,
        label: int,
        sizes: npt.NDArray[np.int16],
        ratios: npt.NDArray[np.float32],
        noise: npt.NDArray[np.float64],
    ) -> dict[str, Choice]:
        """What each side chooses at `slot` (lines 8-9 of Algorithm 1).

        Args:
            slot: (lane, episode, iteration).
            label: position of the target among the config's, 0 without any.
            sizes: int16[n], of the iteration before.
            ratios: quality ratios (Eq. 7) of the iteration before, float32[n].
            noise: epsilon (Eq. 11) of the iteration before, float64[n].

        Returns:
            choices by side.
        """
        target = self.config.targets[label] if len(self.config.targets) > 1 else None
        choices = {}
        for side, rows in self.environment.sides.items():
            states = self.environment.state(rows, sizes[rows], ratios[rows], target)
            choices[side] = choose(
                self._agents[side],
                self.config,
                states,
                noise[rows],
                side,
                slot,
                self.environment.sizes_of(side),
                self._kinds[side],
            )
        return choices

    def remember(self, transition: Arrays, label: int) -> None:
        """Put a transition of every entity, arrays [n] by the names of TRANSITION and `raw`, into the buffers."""
        for side, rows in self.environment.sides.items():
            columns = {name: values[rows] for name, values in transition.items()}
            self._replays[side].add(columns, label)

    def rewards(self, transitions: Arrays, price: npt.NDArray[np.float32] | float) -> npt.NDArray[np.float32]:
        """Eq. 10 for transitions, arrays [b], at one price or one each, float32[b]."""
        return self.environment.reward(transitions[self._gain], transitions["sizes"], price)

    def update(self, slot: Slot, best: Known | None = None) -> dict[str, float | None]:
        """The gradient steps of the fit at `slot` (lines 13-14 of Algorithm 1); `best` is what actors are held to.

        Returns the mean loss of the critics of each side, None for a side without anything to learn from. Raises
        FitError where a loss is not finite.
        """
        return {
            side: self._update(side, slot, best) if len(self._replays[side].entities) else None for side in self._agents
        }

    def move_prices(self, wanted: Iterable[tuple[int, float]]) -> None:
        """Raise the memory weight of a target whose actors want more than it allows, lower it where they want less.

        price * exp(rate * clip(density / (1 - target) - 1, -1, 1)), where density is the mean over what was wanted in
        this round for the target.

        Args:
            wanted: position of a target, and density of the actors' sizes before noise.
        """
        densities: dict[int, list[float]] = {}
        for label, density in wanted:
            densities.setdefault(label, []).append(density)
        for label, found in densities.items():
            excess = sum(found) / len(found) / (1 - self.config.targets[label]) - 1
            self.prices[label] *= math.exp(self.config.memory_weight_rate * min(1.0, max(-1.0, excess)))

    def state_dict(self) -> Arrays:
        """Agents and buffers as arrays by dotted name; the prices are apart."""
        arrays: Arrays = {}
        for side, agent in self._agents.items():
            arrays |= {f"{side}.agent.{name}": value for name, value in agent.state_dict().items()}
            arrays |= {f"{side}.replay.{name}": value for name, value in self._replays[side].state_dict().items()}
        return arrays

    def load_state_dict(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put a state_dict back in place; other names are left alone."""
        for side, agent in self._agents.items():
            agent.load_state_dict(below(arrays, f"{side}.agent."))
            self._replays[side].load_state_dict(below(arrays, f"{side}.replay."))

    def _update(self, side: str, slot: Slot, best: Known | None) -> float:
        environment, config = self.environment, self.config
        offset = environment.sides[side].start
        low, high = environment.sizes_of(side)
        prices = np.array(self.prices, dtype=np.float32)
        targets = np.array(config.targets, dtype=np.float32) if len(config.targets) > 1 else None
        losses = []
        for step in range(config.agent.gradient_steps):
            seed = derive_seed(config.seed, "replay", side, *slot, step)
            generator = np.random.Generator(np.random.PCG64(seed))
            entities, drawn = self._replays[side].sample(config.agent.batch_size, generator)
            rows, label = entities + offset, drawn["label"]
            wanted = None if targets is None else targets[label]
            loss = self._agents[side].update(
                environment.state(rows, drawn["sizes_before"], drawn["ratios_before"], wanted),
                sizes_to_actions(drawn["sizes"], high, low, config.agent.scale),
                self.rewards(drawn, prices[label]),
                environment.state(rows, drawn["sizes"], drawn["ratios"], wanted),
                generator,
                None if best is None else self._sample_of(side, best, (*slot, step)),
            )
            if not math.isfinite(loss):
                lane, episode, iteration = slot
                raise FitError(
                    f"The loss of the critics of {side} is {loss} after episode {episode}, iteration {iteration}, "
                    f"lane {lane}; a finite number was expected. Choose lower learning rates of the agents, or a "
                    "smaller memory weight."
                )
            losses.append(loss)
        return sum(losses) / len(losses)

    def _sample_of(
        self, side: str, known: Known, where: tuple[int, ...]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """A batch of states and good actions."""
        entities = self._replays[side].entities
        generator = np.random.Generator(np.random.PCG64(derive_seed(self.config.seed, "held to", side, *where)))
        drawn = generator.integers(len(entities), size=min(len(entities), self.config.agent.batch_size))
        return self._known(side, known, entities[drawn])


def below(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Arrays:
    """The arrays whose names start with the prefix, by what follows it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
