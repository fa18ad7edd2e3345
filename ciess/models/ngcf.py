"""NGCF (Wang et al., SIGIR 2019), as in its original code: propagation with learned transformations."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ciess.config.models import NGCFConfig
from ciess.models.backbone import DotProductBackbone
from ciess.models.embedding import xavier_table
from ciess.models.graph import Graph, Normalisation

SLOPE = 0.2
"""Of LeakyReLU (original code)."""


class NGCF(DotProductBackbone):
    """S = A E; E' = LeakyReLU(S W1 + b1) + LeakyReLU((E o S) W2 + b2), then dropout.

    Vectors = [E^(0), normalised E^(1), ..., normalised E^(L)]; the next layer takes the one that is not normalised.
    With fewer than max_size columns in the table, the first layer uses as many rows of its W1 and W2.
    """

    def __init__(self, config: NGCFConfig, n_users: int, n_items: int, max_size: int) -> None:
        super().__init__(n_users, n_items, max_size)
        self.config = config
        inputs = [max_size] + [config.width] * (config.layers - 1)
        self.neighbour_weight = nn.ParameterList([torch.empty(rows, config.width) for rows in inputs])
        self.neighbour_bias = nn.ParameterList([torch.empty(1, config.width) for _ in inputs])
        self.interaction_weight = nn.ParameterList([torch.empty(rows, config.width) for rows in inputs])
        self.interaction_bias = nn.ParameterList([torch.empty(1, config.width) for _ in inputs])

    @property
    def normalisation(self) -> Normalisation:
        return self.config.adjacency

    def initial_table(self, generator: torch.Generator) -> Tensor:
        return xavier_table(self.n_users, self.n_items, self.max_size, generator)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Xavier-uniform, the biases too, as 1 x width matrices (original code)."""
        for parameter in self.parameters():
            nn.init.xavier_uniform_(parameter, generator=generator)

    def encode(self, table: Tensor, graph: Graph | None) -> Tensor:
        assert graph is not None
        if self.training and self.config.node_dropout:
            assert self.noise is not None
            graph = graph.dropped(self.config.node_dropout, self.noise)
        vectors, outputs = table, [table]
        for layer in range(self.config.layers):
            width = vectors.shape[1]
            gathered = graph.multiply(vectors)
            neighbours = torch.addmm(self.neighbour_bias[layer], gathered, self.neighbour_weight[layer][:width])
            interaction = torch.addmm(
                self.interaction_bias[layer], vectors * gathered, self.interaction_weight[layer][:width]
            )
            if self.config.activation == "per_term":
                vectors = functional.leaky_relu(neighbours, SLOPE) + functional.leaky_relu(interaction, SLOPE)
            else:
                vectors = functional.leaky_relu(neighbours + interaction, SLOPE)
            if self.training and self.config.message_dropout:
                keep = 1 - self.config.message_dropout
                vectors = vectors * torch.empty_like(vectors).bernoulli_(keep, generator=self.noise).div_(keep)
            outputs.append(functional.normalize(vectors))
        return torch.cat(outputs, dim=1)

    def regularised(self, table: Tensor, encoded: Tensor) -> Tensor:
        """The final concatenated rows (original code)."""
        return encoded
