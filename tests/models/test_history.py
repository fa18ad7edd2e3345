"""Vectors from histories, against dense matrices."""

import numpy as np
import torch

from ciess.data import Interactions
from ciess.models.history import History


def test_users_are_the_sums_of_their_items_and_gradients_flow_to_the_rows(tiny: Interactions) -> None:
    history = History(tiny.train, tiny.n_users, tiny.n_items)
    dense = np.zeros((tiny.n_users, tiny.n_items))
    dense[tiny.train.users, tiny.train.items] = 1
    matrix = torch.from_numpy(dense / np.sqrt(np.maximum(dense.sum(1, keepdims=True), 1))).float()
    generator = torch.Generator().manual_seed(0)
    own, other = (torch.rand(tiny.n_items, generator=generator) + 0.5 for _ in range(2))
    rows = torch.randn(tiny.n_items, 4, generator=generator, requires_grad=True)
    weights = torch.randn(tiny.n, 4, generator=generator)
    found = history.encode(rows, own, other)
    wanted = torch.cat([matrix @ (rows * own[:, None]), rows * other[:, None]])
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad((part * weights).sum(), rows)[0] for part in (found, wanted)]
    torch.testing.assert_close(*gradients)
