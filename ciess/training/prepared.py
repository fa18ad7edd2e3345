"""What fits share: built once a process for a data set and device, and reused by every fit on it."""

import weakref
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ciess.data import Interactions, Pairs
from ciess.data.halving import halves
from ciess.devices import keep_freed_memory
from ciess.evaluation.metrics import UserMetrics, evaluate
from ciess.evaluation.ranking import PairLookup
from ciess.evaluation.sample import evaluated_users
from ciess.models.backbone import Backbone
from ciess.models.graph import Graph, Normalisation
from ciess.models.history import History, build_graph
from ciess.training.blocks import Block, block_count, blocks_of
from ciess.training.sampling import Sampler
from ciess.training.starts.axes import Axes, leading_axes

HALVES = ("searched by", "chosen by")
"""Parts of validation (`halves`)."""


AXES_BYTES = 1 << 30
"""Of the axes that are kept for their next use; the oldest leave first, the newest stay whatever they take."""


class Prepared:
    """Graphs, sampler and pair look-ups of one data set on one device, each built when first asked for."""

    def __init__(self, data: Interactions, device: torch.device) -> None:
        # Not `data` itself: the cache below must not keep it alive.
        self._parts = {"train": data.train, "valid": data.valid, "test": data.test}
        self._split_seed = data.split_seed
        self.n_users, self.n_items, self.device = data.n_users, data.n_items, device
        self._graphs: dict[Normalisation, Graph] = {}
        self._lookups: dict[tuple[str, int], PairLookup] = {}
        self._axes: dict[tuple[float, int, bool, bool], Axes] = {}
        self._reduced: dict[int, Interactions] = {}
        self._blocks: list[Block] = []
        self._sampler: Sampler | None = None

    def graph(self, normalisation: Normalisation | None) -> Graph | None:
        """Graph of the training pairs; None for a backbone without one."""
        if normalisation is None:
            return None
        if normalisation not in self._graphs:
            graph = build_graph(self._parts["train"], self.n_users, self.n_items, normalisation)
            self._graphs[normalisation] = graph.to(self.device)
        return self._graphs[normalisation]

    @property
    def history(self) -> History:
        """Who has what among the training pairs."""
        found = self.graph("history")
        assert isinstance(found, History)
        return found

    def lookup(self, part: str, count: int | None = 0) -> PairLookup:
        """Pairs of a part, of all users or of those that `evaluated_users` draws, row by row.

        Parts are `train`, `valid`, `test`, and the HALVES of `valid`.
        """
        users = self.users(count)
        key = (part, 0 if users is None else len(users))
        if key not in self._lookups:
            pairs, rows = self._part(part), self.n_users
            if users is not None:
                pairs, rows = pairs.of_users(users, self.n_users), len(users)
            self._lookups[key] = PairLookup(pairs, rows, self.n_items, self.device)
        return self._lookups[key]

    def _part(self, name: str) -> Pairs:
        if name in HALVES and name not in self._parts:
            cut = halves(self._parts["valid"], self.n_users, self._split_seed)
            self._parts |= dict(zip(HALVES, cut, strict=True))
        return self._parts[name]

    def users(self, count: int | None) -> npt.NDArray[np.int64] | None:
        """Users that are ranked, None for all."""
        return evaluated_users(self.n_users, count)

    def evaluate(
        self,
        score_users: Callable[[Tensor], Tensor],
        seen: Sequence[str],
        held_out: str,
        model: Backbone,
        count: int | None,
        parts: Sequence[str] = (),
    ) -> UserMetrics:
        """Metrics of the users that are ranked.

        Args:
            score_users: from int64[b] users to float32[b, n_items].
            seen: parts whose pairs are hidden.
            held_out: part whose pairs are to be found.
            model: whose scores they are.
            count: users to rank, as `evaluated_users` takes it.
            parts: of these pairs, on which the same lists are judged, too.

        Returns:
            metrics of every user, those of others not counted.
        """
        hidden = [self.lookup(part, count) for part in seen]
        return evaluate(
            score_users,
            hidden,
            self.lookup(held_out, count),
            model.floats_per_score,
            users=self.users(count),
            n_users=self.n_users,
            parts=[self.lookup(part, count) for part in parts],
        )

    def reduced(self, data: Interactions, count: int) -> Interactions:
        """The data with a sample of its users alone, each with all that it has in training and validation.

        For backbones whose users are made of their items' rows: a sample is ranked as it is among all.

        Args:
            data: what this was built for.
            count: users, as `evaluated_users` takes it.

        Returns:
            users by their order in the sample; halves of validation are those of all.
        """
        if count not in self._reduced:
            users = self.users(count)
            assert users is not None
            found = data.of_users(users)
            lookups = prepare(found, self.device)
            lookups._parts |= {part: self._part(part).of_users(users, self.n_users) for part in HALVES}
            self._reduced[count] = found
        return self._reduced[count]

    def axes(self, exponent: float, rank: int, by_users: bool = False, with_users: bool = True) -> Axes:
        """The leading axes of the training pairs (`leading_axes`), with `by_users` the roles exchanged."""
        key = (exponent, rank, by_users, with_users)
        if key not in self._axes:
            pairs, rows, columns = self._parts["train"], self.n_users, self.n_items
            if by_users:
                pairs, rows, columns = Pairs.sorted(pairs.items, pairs.users), columns, rows
            self._axes[key] = leading_axes(pairs, rows, columns, exponent, rank, self.device, with_users)
            held = sum(axes.bytes for axes in self._axes.values())
            for oldest in list(self._axes)[:-1]:
                if held > AXES_BYTES:
                    held -= self._axes.pop(oldest).bytes
        return self._axes[key]

    @property
    def block_count(self) -> int:
        """Blocks that users come in where they need no rows; 1 where all of them come at once."""
        return block_count(len(self._parts["train"]))

    @property
    def blocks(self) -> list[Block]:
        """Blocks of users with their histories."""
        if not self._blocks:
            parts = self._parts["train"], self.n_users, self.n_items, self.block_count
            self._blocks = blocks_of(*parts, self.device)
        return self._blocks

    def degree_scales(self) -> tuple[Tensor, Tensor]:
        """(training pairs of a row, at least 1)^-1/2: float32[n_users] and float32[n_items]."""
        degrees = np.maximum(self._parts["train"].degrees(self.n_users, self.n_items), 1)
        scales = torch.from_numpy(degrees**-0.5).float().to(self.device)
        return scales[: self.n_users], scales[self.n_users :]

    @property
    def sampler(self) -> Sampler:
        """Sampler of the training pairs."""
        if self._sampler is None:
            self._sampler = Sampler(self._parts["train"], self.n_users, self.n_items, self.device)
        return self._sampler


_CACHE: "weakref.WeakKeyDictionary[Interactions, dict[str, Prepared]]" = weakref.WeakKeyDictionary()


def prepare(data: Interactions, device: torch.device) -> Prepared:
    """The shared parts of this very object on this device; they go when the data goes."""
    keep_freed_memory()
    by_device = _CACHE.setdefault(data, {})
    if str(device) not in by_device:
        by_device[str(device)] = Prepared(data, device)
    return by_device[str(device)]
