"""What ESAPN (Liu et al., SIGIR 2020) remembers of every entity: how often it came by, and its last held-out losses."""

import torch
from torch import Tensor, nn


def entity_means(entities: Tensor, values: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Mean of values float32[k] of each of the entities int64[k], and how many: float32[n] and int64[n].

    Entities without a value have the mean 0.
    """
    counts = torch.bincount(entities, minlength=n)
    sums = torch.zeros(n, device=values.device).index_add_(0, entities, values)
    return sums / counts.clamp(min=1), counts


class EntityLosses(nn.Module):
    """Running counts of n entities in the stream, and their losses on held-out pairs after the last steps.

    Attributes:
        counts: int64[n], pairs so far.
        last: float32[n, memory], newest first.
        seen: int64[n], entries of `last` in use.
    """

    counts: Tensor
    last: Tensor
    seen: Tensor

    def __init__(self, n: int, memory: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("last", torch.zeros(n, memory))
        self.register_buffer("seen", torch.zeros(n, dtype=torch.int64))

    def count(self, pairs: Tensor) -> None:
        """Add int64[n] streamed pairs of each entity."""
        self.counts += pairs

    def record(self, means: Tensor, pairs: Tensor) -> None:
        """Add the mean loss float32[n] of each entity over int64[n] held-out pairs; without one it stays as it is."""
        present = pairs > 0
        shifted = torch.cat([means[:, None], self.last[:, :-1]], dim=1)
        self.last.copy_(torch.where(present[:, None], shifted, self.last))
        self.seen.copy_((self.seen + present).clamp(max=self.last.shape[1]))

    def rewards(self, means: Tensor) -> Tensor:
        """Mean of the last losses minus the losses float32[n] now: float32[n], for entities that were seen."""
        return self.last.sum(1) / self.seen.clamp(min=1) - means

    def popularity(self, largest: int) -> Tensor:
        """int64[n]: floor(log2(1 + count)), at most `largest`; the published code takes the count itself."""
        # frexp is exact, a logarithm near a power of two is not.
        exponent = torch.frexp((self.counts + 1).to(torch.float64)).exponent.to(torch.int64) - 1
        return exponent.clamp(max=largest)
