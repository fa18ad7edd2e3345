"""The actor that holds one search: both agents, the replay buffer and the masks visited.

Workers ask it for a fit and tell it the outcome. It writes a checkpoint after every outcome and starts from the last
one, so that Ray may start it again anywhere. All its methods may be called twice with the same arguments.
"""

import asyncio
import os
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from ciess.cluster.leases import FRUITLESS_STARTS, Leases, Worker
from ciess.cluster.shared_data import SharedData
from ciess.config.search import SearchConfig
from ciess.errors import CiessError
from ciess.search.proposals import Outcome, Proposal
from ciess.search.recorder import Recorder, search_fingerprint
from ciess.search.reference import environment_of, train_reference
from ciess.search.rules import search_rules
from ciess.search.search import Search
from ciess.storage.storage import Storage

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Task:
    """What a worker gets for asking: a proposal to fit, or the word that there is nothing more for it."""

    proposal: Proposal | None = None
    leave: bool = False


@dataclass(frozen=True)
class News:
    """How a search stands.

    Attributes:
        rows: of history.parquet, of completed rounds only.
        failure: why it ended, if it did.
    """

    rows: list[dict[str, Any]]
    fits_done: int
    fits: int
    mid_round: bool
    done: bool
    failure: str | None = None


class SearchActor:
    """One search in progress; to be made a Ray actor by `ray.remote`.

    Every touch of the search runs in one thread of its own, so that an update of the agents never keeps a worker's
    question, or a look at the status, waiting in the event loop.
    """

    def __init__(self, shared: SharedData, config: SearchConfig, run: Storage) -> None:
        """run: run directory, with its reference. Raises RunDirectoryError for checkpoints that cannot be used."""
        data = shared.load()
        reference = train_reference(data, config.started(), config.seed, run.child("reference"))
        self._search = Search(config, environment_of(data, config, reference), search_rules(data, config, run))
        self._recorder = Recorder(self._search, run, search_fingerprint(data, config))
        self._notes = self._recorder.restore()
        self._restored = self._search.fits_done
        self._leases = Leases()
        self._open = self._search.ask()
        self._failure: str | None = None
        self._closed = False
        self._agents = ThreadPoolExecutor(1)
        self._changed = asyncio.Condition()
        self._now = self._look()
        self._first_ask = self._last_tell = 0.0

    async def hello(self, rank: int, incarnation: int, pid: int, node: str) -> None:
        """A worker is ready. Incarnation: number of its group's start, larger than that of earlier ones."""
        self._leases.hello(rank, incarnation, Worker(pid, node))
        if self._leases.fruitless > FRUITLESS_STARTS:
            await self.fail(
                f"The workers were lost {FRUITLESS_STARTS} times in a row before any of them finished a fit; the last "
                f"ones ran on {node}. Expected fits that end. Look for a lack of memory on the nodes, and give a "
                "worker more of it or fewer neighbours by --cpus-per-worker."
            )
        await self._notify()

    async def ask(self, rank: int, incarnation: int, patience: float) -> Task:
        """A fit for this worker; nothing where none has come up after `patience` seconds."""
        end = asyncio.get_running_loop().time() + patience
        self._first_ask = self._first_ask or time.time()
        while True:
            if self._over or not self._leases.admits(incarnation):
                return Task(leave=True)
            proposal = self._leases.lend(rank, self._open)
            if proposal is not None or not await self._wait(end):
                return Task(proposal)

    async def tell(self, outcome: Outcome) -> None:
        """Take an outcome; one that is known already changes nothing."""
        try:
            self._open, self._now = await self._in_thread(lambda: self._tell(outcome))
        except CiessError as error:
            await self.fail(str(error))
        except Exception:
            await self.fail(traceback.format_exc())
        self._leases.finished(outcome.slot)
        self._last_tell = time.time()
        await self._notify()

    async def fail(self, text: str) -> None:
        """A fit, or what the search makes of it, broke down: the search ends with these words."""
        self._failure = self._failure or text
        await self._notify()

    async def news(self, known: int, patience: float) -> News:
        """What has happened beyond `known` rows; waits up to `patience` seconds for something."""
        end = asyncio.get_running_loop().time() + patience
        while len(self._now.rows) <= known and not self._over and await self._wait(end):
            pass
        return replace(self._now, rows=self._now.rows[known:], failure=self._failure)

    async def status(self) -> dict[str, Any]:
        """Leases by place, workers by rank, counts; first ask and last tell in seconds of the epoch."""
        leases = self._leases
        return {
            "pid": os.getpid(),
            "fits_done": self._now.fits_done,
            "fits": self._now.fits,
            "mid_round": self._now.mid_round,
            "restored": self._restored,
            "notes": self._notes,
            "incarnation": leases.incarnation,
            "requeued": leases.requeued,
            "leases": {slot: asdict(lease) for slot, lease in leases.held.items()},
            "workers": {rank: asdict(worker) for rank, worker in leases.workers.items()},
            "first_ask": self._first_ask,
            "last_tell": self._last_tell,
            "failure": self._failure,
        }

    async def close(self) -> None:
        """Write what was found and send the workers home."""
        self._closed = True
        await self._in_thread(self._recorder.finish)
        await self._notify()

    @property
    def _over(self) -> bool:
        return self._closed or self._failure is not None or self._now.done

    def _tell(self, outcome: Outcome) -> tuple[list[Proposal], News]:
        self._recorder.tell(outcome)
        return self._search.ask(), self._look()

    def _look(self) -> News:
        search = self._search
        return News(search.rows, search.fits_done, search.fits, search.mid_round, search.done)

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._agents, call)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, end: float) -> bool:
        """Wait for a change; returns whether there was one before the end."""
        try:
            async with asyncio.timeout_at(end), self._changed:
                await self._changed.wait()
        except TimeoutError:
            return False
        return True
