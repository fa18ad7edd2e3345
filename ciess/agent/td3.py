"""TD3 (Fujimoto et al., ICML 2018): twin critics, delayed actor, smoothed and clamped target actions."""

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ciess.agent.networks import Actor, Critic, action_distance
from ciess.config.agent import AgentConfig

Floats = npt.NDArray[np.float32]

BLOCK_ROWS = 1024
"""Rows that a network evaluates at once without gradients: a hidden layer of 256 is then 1 MiB, which stays in cache;
for all sizes met on the walks of Yelp2018 at once it would be 430 MB."""


IMITATION_STEPS, IMITATION_BATCH, IMITATION_RATE = 500, 1024, 3e-3
"""Of an actor's fit to known sizes: below a second."""


class TD3:
    """One side's actor and twin critics, with their targets and optimisers, on the CPU."""

    def __init__(self, config: AgentConfig, state_width: int, max_size: int, seed: int) -> None:
        """state_width: columns of a state. max_size: largest size, to express the target noise in dimensions."""
        self.config = config
        self.smoothing = action_distance(config.target_noise, max_size)
        self.smoothing_clip = action_distance(config.target_noise_clip, max_size)
        generator = torch.Generator().manual_seed(seed)
        self.actor = Actor(state_width, config.hidden, generator)
        self.critics = nn.ModuleList([Critic(state_width, config.hidden, generator) for _ in range(2)])
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=config.actor_learning_rate)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=config.critic_learning_rate)
        self.updates = 0

    def act(self, states: Floats) -> Floats:
        """mu(s), float32[b] in [-1, 1], of states float32[b, k]."""
        return _in_blocks(self.actor, states)

    def values(self, states: Floats, actions: Floats) -> Floats:
        """Q(s, a), float32[b, m], of m actions float32[b, m] a state, by the critic of `walk_critic`."""
        critics = list(self.critics)[: 1 if self.config.walk_critic == "first" else 2]
        repeated, flat = np.repeat(states, actions.shape[1], axis=0), actions.reshape(-1)
        found: Floats = np.min([_in_blocks(critic, repeated, flat) for critic in critics], axis=0)
        return found.reshape(actions.shape)

    def imitate(self, states: Floats, actions: Floats, generator: np.random.Generator) -> None:
        """Fit the actor, and its target, to actions that are known to be good.

        Args:
            states: float32[b, k].
            actions: float32[b].
            generator: of the batches.
        """
        optimizer = torch.optim.Adam(self.actor.parameters(), lr=IMITATION_RATE)
        inputs, wanted = torch.from_numpy(states), torch.from_numpy(actions)
        for _ in range(IMITATION_STEPS):
            batch = torch.from_numpy(generator.integers(len(states), size=min(IMITATION_BATCH, len(states))))
            self._step(optimizer, functional.mse_loss(self.actor(inputs[batch]), wanted[batch]), self.actor)
        self.target_actor.load_state_dict(self.actor.state_dict())

    def target_actions(self, next_states: Tensor, generator: np.random.Generator) -> Tensor:
        """Smoothed, a' = clamp(mu'(s') + clamp(noise, -c, c), -1, 1), noise for each transition (TD3, section 5.3)."""
        noise = torch.from_numpy(generator.standard_normal(len(next_states), dtype=np.float32)) * self.smoothing
        noise = noise.clamp(-self.smoothing_clip, self.smoothing_clip)
        smoothed: Tensor = (self.target_actor(next_states) + noise).clamp(-1, 1)
        return smoothed

    def targets(self, rewards: Tensor, next_states: Tensor, generator: np.random.Generator) -> Tensor:
        """Learning targets r + gamma min(Q'_1, Q'_2)(s', a') (TD3, Algorithm 1). An
        episode's end is a time limit, not a terminal state.
        """
        if self.config.gamma == 0:
            return rewards
        with torch.no_grad():
            actions = self.target_actions(next_states, generator)
            values = torch.stack([critic(next_states, actions) for critic in self.target_critics]).amin(0)
            return rewards + self.config.gamma * values

    def update(
        self,
        states: Floats,
        actions: Floats,
        rewards: Floats,
        next_states: Floats,
        generator: np.random.Generator,
        held_to: tuple[Floats, Floats] | None = None,
    ) -> float:
        """One update of the critics, every `policy_delay`-th also of actor and targets (TD3, Algorithm 1).

        Args:
            states: float32[b, k].
            actions: float32[b].
            rewards: float32[b].
            next_states: float32[b, k].
            generator: of the noise on target actions.
            held_to: states float32[m, k] and the actions float32[m] that the actor is held to there, by
                `config.held_to_best` (TD3+BC, Fujimoto and Gu, NeurIPS 2021, Eq. 3).

        Returns:
            the mean loss of the two critics before it.
        """
        config = self.config
        self.updates += 1
        now, taken = torch.from_numpy(states), torch.from_numpy(actions)
        wanted = self.targets(torch.from_numpy(rewards), torch.from_numpy(next_states), generator)
        loss = sum((functional.mse_loss(critic(now, taken), wanted) for critic in self.critics), torch.zeros(()))
        self._step(self.critic_optimizer, loss, self.critics)
        delayed = self.updates % config.policy_delay == 0
        if delayed and self.updates > config.warm_up * config.gradient_steps:
            first = self.critics[0].requires_grad_(False)
            self._step(self.actor_optimizer, self._actor_loss(first, now, held_to), self.actor)
            first.requires_grad_(True)
            self._follow(self.target_actor, self.actor)
        if delayed or config.target_critic_every_update:
            self._follow(self.target_critics, self.critics)
        return float(loss.detach())

    def _actor_loss(self, critic: nn.Module, states: Tensor, held_to: tuple[Floats, Floats] | None) -> Tensor:
        values: Tensor = critic(states, self.actor(states))
        if held_to is None:
            return -values.mean()
        known, good = (torch.from_numpy(part) for part in held_to)
        distance = functional.mse_loss(self.actor(known), good)
        # Values are of any scale: relative to their own mean size, as in TD3+BC.
        return self.config.held_to_best * distance - values.mean() / values.detach().abs().mean().clamp(min=1e-6)

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor, module: nn.Module) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), self.config.gradient_clip)
        optimizer.step()

    def _follow(self, target: nn.Module, online: nn.Module) -> None:
        with torch.no_grad():
            for behind, ahead in zip(target.parameters(), online.parameters(), strict=True):
                behind.lerp_(ahead, self.config.tau)

    def _modules(self) -> dict[str, nn.Module]:
        names = ("actor", "critics", "target_actor", "target_critics")
        return {name: getattr(self, name) for name in names}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"actor_optimizer": self.actor_optimizer, "critic_optimizer": self.critic_optimizer}

    def state_dict(self) -> dict[str, npt.NDArray[np.generic]]:
        """Weights, moments of the optimisers and the number of updates, as arrays by dotted name."""
        state: dict[str, npt.NDArray[np.generic]] = {"updates": np.array(self.updates)}
        for name, module in self._modules().items():
            state |= {f"{name}.{key}": value.numpy().copy() for key, value in module.state_dict().items()}
        for name, optimizer in self._optimizers().items():
            for index, slots in optimizer.state_dict()["state"].items():
                state |= {f"{name}.{index}.{slot}": value.numpy().copy() for slot, value in slots.items()}
        return state

    def load_state_dict(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Put a state_dict back in place."""
        self.updates = int(state["updates"])
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
        for name, module in self._modules().items():
            prefix = f"{name}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        for name, optimizer in self._optimizers().items():
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"{name}."):
                    _, index, slot = key.split(".")
                    slots.setdefault(int(index), {})[slot] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def _in_blocks(network: nn.Module, *inputs: Floats) -> Floats:
    """Outputs float32[b] of a network for inputs of b rows each, without gradients."""
    blocks = zip(*(torch.from_numpy(rows).split(BLOCK_ROWS) for rows in inputs), strict=True)
    with torch.no_grad():
        outputs: Floats = torch.cat([network(*block) for block in blocks]).numpy()
    return outputs
