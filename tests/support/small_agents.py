"""Agents of few weights, batches for them, and their networks by hand."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ciess.agent.td3 import TD3
from ciess.config.agent import AgentConfig

Floats = npt.NDArray[np.float32]


State = dict[str, npt.NDArray[np.generic]]


ROWS = 40


def make(seed: int = 0, hidden: int = 16, state_width: int = 3, **config: Any) -> TD3:
    return TD3(AgentConfig(hidden=hidden, **config), state_width, 128, seed)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def batch(seed: int = 0, rows: int = ROWS) -> tuple[Floats, Floats, Floats, Floats]:
    """States, actions, rewards and next states."""
    generator = rng(100 + seed)
    states, next_states = generator.random((2, rows, 3), dtype=np.float32)
    actions = generator.uniform(-1, 1, rows).astype(np.float32)
    return states, actions, generator.random(rows, dtype=np.float32), next_states


def update(agent: TD3, times: int = 1, first: int = 0) -> list[float]:
    """Updates with batches and noise that differ from each other; the losses."""
    return [agent.update(*batch(number), rng(number)) for number in range(first, first + times)]


def part(agent: TD3, name: str) -> State:
    """Weights of `actor`, `critics`, `target_actor` or `target_critics`, by their names in that part."""
    return {key.removeprefix(f"{name}."): v for key, v in agent.state_dict().items() if key.startswith(f"{name}.")}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def by_hand(weights: State, prefix: str, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Output of two layers with ReLU and a linear one, in float64, from the weights of a state_dict."""
    hidden = inputs.astype(np.float64)
    for layer in ("first", "second", "last"):
        hidden = hidden @ weights[f"{prefix}.layers.{layer}.weight"].T + weights[f"{prefix}.layers.{layer}.bias"]
        hidden = hidden if layer == "last" else np.maximum(hidden, 0)
    return hidden[:, 0]


def critic_by_hand(agent: TD3, name: str, states: Floats, actions: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return by_hand(agent.state_dict(), name, np.column_stack([2 * states - 1, actions]))


def actor_by_hand(agent: TD3, name: str, states: Floats) -> npt.NDArray[np.float64]:
    return np.tanh(by_hand(agent.state_dict(), name, 2 * states - 1))


def shift(network: nn.Module, amount: float) -> None:
    """Move the output of a network, before tanh, by this much."""
    with torch.no_grad():
        network.layers.last.bias.add_(amount)  # type: ignore[union-attr]


def sharpen(network: nn.Module) -> None:
    """Let the output of a fresh network depend strongly on its inputs."""
    with torch.no_grad():
        network.layers.last.weight.mul_(100)  # type: ignore[union-attr]
