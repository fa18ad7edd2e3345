"""Actor and critic, and the one place that converts between actions in [-1, 1] and embedding sizes."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

FINAL_WEIGHT = 3e-3
"""Weights of the last layer start uniform in +-3e-3 (published code), so that the first actions are near 0."""


Scale = Literal["linear", "log"]
"""How sizes lie on the actions: evenly, or their logarithms do, so that small sizes, which a small budget is made of,
are not crowded into the end where tanh is flat."""


def sizes_to_actions(
    sizes: npt.NDArray[np.generic], max_size: int, min_size: int = 1, scale: Scale = "linear"
) -> npt.NDArray[np.float32]:
    """Actions in [-1, 1], float32, of sizes in min_size..max_size (section 2.2.4: from 1)."""
    reach, above = max(1, max_size - min_size), np.asarray(sizes, dtype=np.float32) - min_size
    if scale == "log":
        return (np.log1p(above) / np.float32(np.log1p(reach)) * 2 - 1).astype(np.float32)
    return (above / reach * 2 - 1).astype(np.float32)


def actions_to_sizes(
    actions: npt.NDArray[np.floating], max_size: int, min_size: int = 1, scale: Scale = "linear"
) -> npt.NDArray[np.float32]:
    """Real-valued sizes in min_size..max_size, float32, of actions in [-1, 1]."""
    share, reach = (np.asarray(actions, dtype=np.float32) + 1) / 2, max_size - min_size
    if scale == "log":
        return (np.expm1(share * np.float32(np.log1p(reach))) + min_size).astype(np.float32)
    return (share * reach + min_size).astype(np.float32)


def whole_sizes(sizes: npt.NDArray[np.floating], max_size: int, min_size: int = 1) -> npt.NDArray[np.int16]:
    """Nearest whole sizes in min_size..max_size, int16."""
    rounded: npt.NDArray[np.int16] = np.clip(np.rint(sizes), min_size, max_size).astype(np.int16)
    return rounded


def action_distance(dimensions: float, max_size: int) -> float:
    """How far apart the actions of two sizes are that differ by so many dimensions."""
    return 2 * dimensions / max(1, max_size - 1)


class Layers(nn.Module):
    """Two hidden layers with ReLU and one output."""

    def __init__(self, inputs: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        # skip_init: weights come from the generator alone, never from the global random state.
        self.first, self.second, self.last = (
            nn.utils.skip_init(nn.Linear, width_in, width_out)
            for width_in, width_out in ((inputs, hidden), (hidden, hidden), (hidden, 1))
        )
        with torch.no_grad():
            for layer in (self.first, self.second, self.last):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
            self.last.weight.uniform_(-FINAL_WEIGHT, FINAL_WEIGHT, generator=generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32[b] from float32[b, inputs]."""
        # In place: no gradient needs the values before a ReLU, and less memory is touched.
        hidden = functional.relu(self.second(functional.relu(self.first(inputs), inplace=True)), inplace=True)
        output: Tensor = self.last(hidden).squeeze(-1)
        return output


class Actor(nn.Module):
    """mu of Eq. 11: from states float32[b, k] in [0, 1] to actions float32[b] in [-1, 1]."""

    def __init__(self, state_width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = Layers(state_width, hidden, generator)

    def forward(self, states: Tensor) -> Tensor:
        return torch.tanh(self.layers(2 * states - 1))


class Critic(nn.Module):
    """Q of Eq. 14: from states float32[b, k] in [0, 1] and actions float32[b] in [-1, 1] to values float32[b]."""

    def __init__(self, state_width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = Layers(state_width + 1, hidden, generator)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        values: Tensor = self.layers(torch.cat([2 * states - 1, actions.unsqueeze(-1)], dim=-1))
        return values
