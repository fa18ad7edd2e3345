"""Blocks of users, each with all that its users have: steps of the squared loss where all users at once are too many.

For backbones that make users of their items' rows: a block's vectors need no others.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ciess.config.starts import WHOLE_PAIRS
from ciess.data import Pairs
from ciess.models.history import History
from ciess.seeds import derive_seed

BLOCK_PAIRS = 1_000_000
"""Training pairs a block. At 1 million users a step then takes a tenth of the memory, and an epoch brings ten steps for
the time of one."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some users and their histories.

    Attributes:
        users: codes int64[m], ascending.
        history: of these users, coded by their order.
    """

    users: torch.Tensor
    history: History


def block_count(pairs: int) -> int:
    """Blocks for so many training pairs."""
    return 1 if pairs <= WHOLE_PAIRS else math.ceil(pairs / BLOCK_PAIRS)


def blocks_of(pairs: Pairs, n_users: int, n_items: int, count: int, device: torch.device) -> list[Block]:
    """Users in random blocks of equal size, by a seed of their own.

    Args:
        pairs: of training.
        n_users: number of users.
        n_items: number of items.
        count: of blocks.
        device: where they are.

    Returns:
        the blocks.
    """
    generator = np.random.Generator(np.random.PCG64(derive_seed(n_users, "blocks of users")))
    found = []
    parts: list[npt.NDArray[np.int64]] = np.array_split(generator.permutation(n_users), count)
    for part in parts:
        users = np.sort(part)
        history = History(pairs.of_users(users, n_users), len(users), n_items).to(device)
        found.append(Block(torch.from_numpy(users).to(device), history))
    return found
