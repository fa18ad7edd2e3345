"""Training pairs as a stream in random order, beside held-out ones that only policies see."""

import numpy as np
import torch
from torch import Tensor

from ciess.config.methods import ESAPNConfig
from ciess.data import Interactions, Pairs
from ciess.models.graph import Graph, Normalisation
from ciess.models.history import build_graph
from ciess.seeds import derive_seed
from ciess.training.prepared import Prepared
from ciess.training.sampling import Triples

Batch = tuple[Tensor, Tensor, Tensor]
"""Users, positives and negatives, int64[k] each."""


class PairStream:
    """The training pairs of a data set, a share of them held out for good.

    Every pass has an order and negatives of its own, that follow from (seed, pass) alone. Negatives are outside all
    training items of the user, the held-out ones included. held_out: bool[training pairs].
    """

    def __init__(self, data: Interactions, prepared: Prepared, settings: ESAPNConfig, seed: int) -> None:
        self.data, self.prepared, self.settings = data, prepared, settings
        self.seed = derive_seed(seed, "esapn", "stream")
        count = len(data.train)
        generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "esapn", "held out")))
        self.held_out = np.zeros(count, dtype=np.bool_)
        # At least one pair on either side, however few there are.
        self.held_out[generator.permutation(count)[: min(max(1, round(settings.held_out * count)), count - 1)]] = True
        keys = data.train.users.astype(np.int64) * data.n_items + data.train.items
        self._keys = torch.from_numpy(keys[self.held_out]).to(prepared.device)
        # The same negatives for good: what changes of a held-out loss is then due to the model alone.
        self._held_out = self._pass(0, held_out=True, batch_size=settings.policy_batch_size)

    def graph(self, normalisation: Normalisation | None) -> Graph | None:
        """Graph of the pairs that are streamed: of a held-out pair it must not know."""
        if normalisation is None:
            return None
        pairs: Pairs = self.data.train.select(~self.held_out)
        return build_graph(pairs, self.data.n_users, self.data.n_items, normalisation).to(self.prepared.device)

    def epoch(self, number: int) -> list[Batch]:
        """Batches of the stream in pass `number`, counted from 1."""
        assert self.settings.batch_size is not None
        return self._pass(number, held_out=False, batch_size=self.settings.batch_size)

    def judging(self, step: int) -> Batch:
        """The held-out batch of a step: one after the other, from the first again after the last."""
        return self._held_out[step % len(self._held_out)]

    def _pass(self, number: int, held_out: bool, batch_size: int) -> list[Batch]:
        whole: Triples = self.prepared.sampler.epoch(self.seed, number, len(self.data.train), "interaction")
        users, positives, negatives = whole.users[0], whole.positives[0], whole.negatives[0]
        held = torch.isin(users * self.data.n_items + positives, self._keys)
        chosen = torch.nonzero(held == held_out).flatten()
        return [(users[rows], positives[rows], negatives[rows]) for rows in chosen.split(batch_size)]
