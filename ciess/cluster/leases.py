"""Who is fitting what: proposals are lent to workers, and lent again when a worker group was lost.

Ray Train restarts a whole group when one of its workers dies. Every start is an *incarnation*, a number that rank 0
draws from its clock: what older incarnations hold is free again, and who asks for one of them is turned away.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ciess.search.proposals import Proposal, Slot

FRUITLESS_STARTS = 5
"""Starts of a worker group in a row without a single finished fit before the search gives up."""


@dataclass(frozen=True)
class Worker:
    """A Ray Train worker of the present incarnation.

    Attributes:
        node: its IP address.
    """

    pid: int
    node: str


@dataclass(frozen=True)
class Lease:
    """A fit in progress: rank of its worker, and when it was lent (seconds of the epoch)."""

    rank: int
    since: float


class Leases:
    """The fits in progress of one search."""

    def __init__(self) -> None:
        self.incarnation = 0
        self.workers: dict[int, Worker] = {}
        self.held: dict[Slot, Lease] = {}
        self.requeued = 0
        self.fruitless = 0

    def hello(self, rank: int, incarnation: int, worker: Worker) -> None:
        """A worker is there. The first one of a new incarnation frees what the last one held."""
        if incarnation > self.incarnation:
            self._succeed(incarnation)
            self.fruitless += 1
        if incarnation == self.incarnation:
            self.workers[rank] = worker

    def admits(self, incarnation: int) -> bool:
        """Whether a worker of this incarnation may go on.

        An actor that was restarted knows none: the first group that asks is the present one.
        """
        if incarnation > self.incarnation:
            self._succeed(incarnation)
        return incarnation == self.incarnation

    def lend(self, rank: int, proposals: Sequence[Proposal]) -> Proposal | None:
        """A proposal for this worker: the one that it holds already, else the first that nobody holds."""
        for proposal in proposals:
            if (lease := self.held.get(proposal.slot)) is not None and lease.rank == rank:
                return proposal
        for proposal in proposals:
            if proposal.slot not in self.held:
                self.held[proposal.slot] = Lease(rank, time.time())
                return proposal
        return None

    def finished(self, slot: Slot) -> None:
        """A fit was told, by whomever."""
        self.held.pop(slot, None)
        self.fruitless = 0

    def _succeed(self, incarnation: int) -> None:
        self.requeued += len(self.held)
        self.held.clear()
        self.workers.clear()
        self.incarnation = incarnation
