"""The policy of ESAPN (Liu et al., SIGIR 2020) that decides who grows, trained by REINFORCE."""

import torch
from torch import Tensor, nn

STAY, ENLARGE = 0, 1
POPULARITIES = 40
"""Values of floor(log2(1 + count)) that are told apart."""


class SizePolicy(nn.Module):
    """Probabilities of staying and of the next size, from the popularity and the level of an entity.

    Published code: popularity embedded in 32 columns and normalised over the batch, beside the one-hot level; a hidden
    layer of 512, normalised over the batch, tanh; two logits. An entity is its state, popularity * levels + level, so
    the network runs once a state, and states weigh in the normalisations as often as they occur in the batch.
    """

    def __init__(self, levels: int, initial_stay: float, generator: torch.Generator) -> None:
        """levels: number of sizes. initial_stay: logit by which staying leads before training."""
        super().__init__()
        self.levels = levels
        self.embedding = nn.Parameter(torch.empty(POPULARITIES, 32).normal_(generator=generator))
        self.embedding_scale, self.embedding_shift = nn.Parameter(torch.ones(32)), nn.Parameter(torch.zeros(32))
        self.hidden = nn.utils.skip_init(nn.Linear, 32 + levels, 512)
        self.hidden_scale, self.hidden_shift = nn.Parameter(torch.ones(512)), nn.Parameter(torch.zeros(512))
        self.output = nn.utils.skip_init(nn.Linear, 512, 2)
        for layer in (self.hidden, self.output):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        with torch.no_grad():
            # All states start alike: what tells them apart is learned, not drawn.
            self.output.weight[ENLARGE] = self.output.weight[STAY]
            self.output.bias.copy_(torch.tensor([initial_stay, 0.0]))

    def states(self, popularity: Tensor, levels: Tensor) -> Tensor:
        """int64[rows] from popularities and levels, int64[rows]."""
        return popularity * self.levels + levels

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """Log of the probabilities of both actions in every state.

        Args:
            states: int64[rows].
            present: bool[rows], the batch over which is normalised.

        Returns:
            float32[states, 2].
        """
        count = POPULARITIES * self.levels
        weights = torch.zeros(count, device=states.device).index_add_(0, states, present.to(torch.float32))
        popularity = self.embedding.repeat_interleave(self.levels, dim=0)
        popularity = _normalised(popularity, weights) * self.embedding_scale + self.embedding_shift
        level = torch.eye(self.levels, device=states.device).repeat(POPULARITIES, 1)
        hidden = _normalised(self.hidden(torch.cat([popularity, level], dim=1)), weights)
        hidden = torch.tanh(hidden * self.hidden_scale + self.hidden_shift)
        return torch.log_softmax(self.output(hidden), dim=1)


def _normalised(values: Tensor, weights: Tensor) -> Tensor:
    """Columns of values float32[states, w] brought to mean 0 and variance 1 under weights float32[states]."""
    shares = (weights / weights.sum().clamp(min=1))[:, None]
    centred = values - (shares * values).sum(0)
    return centred * ((shares * centred.square()).sum(0) + 1e-5).rsqrt()


def sample(log_probabilities: Tensor, states: Tensor, generator: torch.Generator) -> Tensor:
    """bool[rows]: which rows grow, drawn from the policy in their states int64[rows]."""
    draws = torch.rand(len(states), generator=generator, device=states.device)
    return draws < log_probabilities.detach()[states, ENLARGE].exp()


def greedy(log_probabilities: Tensor, states: Tensor) -> Tensor:
    """bool[rows]: rows for which growing is the likelier action; at a tie they stay."""
    best = log_probabilities[:, ENLARGE] > log_probabilities[:, STAY]
    return best[states]


def reinforce(log_probabilities: Tensor, states: Tensor, actions: Tensor, rewards: Tensor, chosen: Tensor) -> Tensor:
    """Sum over the chosen rows of -log pi(action | state) * reward (REINFORCE; published code: a sum, too).

    Args:
        log_probabilities: float32[states, 2].
        states: int64[rows].
        actions: bool[rows].
        rewards: float32[rows].
        chosen: bool[rows].

    Returns:
        a scalar.
    """
    taken = log_probabilities[states, actions.to(torch.int64)]
    return -(taken * torch.where(chosen, rewards, 0.0)).sum()
