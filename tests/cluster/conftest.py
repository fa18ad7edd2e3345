"""Ray for tests: one local cluster in this process, with a folder and ports of its own, and searches that run on it.

Processes are taken by the pid that the project's own actor says, and nothing else on the machine is touched.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Ray reads them when it is imported; a cluster that runs elsewhere on this machine is none of ours.
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ.pop("RAY_ADDRESS", None)

from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.runs.search import open_reference, run_search
from ciess.search.proposals import Outcome, Proposal
from ciess.search.reference import train_reference
from ciess.storage.storage import Storage

PATIENCE = 120.0
"""Seconds that a test waits for something to happen: starting workers takes most of a minute on a busy machine."""
LONG = 60.0
"""Seconds of patience of a question to an actor that is answered at once in a test that passes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What Ray itself leaves behind is not ours to close, and names of its own modules change.
    for item in items:
        if "cluster" in item.path.parent.parts and item.get_closest_marker("cluster"):
            for ignored in ("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"):
                item.add_marker(pytest.mark.filterwarnings(ignored))
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


def until(found: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """What `found` returns once that is true."""
    end = time.monotonic() + patience
    while not (value := found()):
        assert time.monotonic() < end, f"waited {patience:g} s in vain until {what}"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session", name="until")
def _until() -> Callable[..., Any]:
    """until(found, what): waits until found() is true, and returns it."""
    return until


@pytest.fixture(scope="session")
def local_ray() -> Iterator[Any]:
    """Ray, connected to a cluster of two CPUs in this process."""
    import ray

    # Ray's sockets need paths of less than 107 characters.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def data(planted: Planted) -> Interactions:
    return planted.data


@pytest.fixture(scope="session")
def config(small_search: Callable[..., SearchConfig]) -> Callable[..., SearchConfig]:
    """config(short_fit={...}, ...): a search of eight fits, two of equal sizes, of some tenths of a second each."""

    def make(short_fit: dict[str, Any] | None = None, **changes: Any) -> SearchConfig:
        # Long enough for a worker to be halted at a fit.
        longer = {"epochs": 60, "learning_rate": 0.01} | (short_fit or {})
        return small_search(**{"iterations": 3, "sparsities": (0.5, 0.75), "short_fit": longer} | changes)

    return make


@pytest.fixture(scope="session")
def undisturbed(
    data: Interactions, config: Callable[..., SearchConfig], tmp_path_factory: pytest.TempPathFactory
) -> Storage:
    """Run directory of `config()`, searched in this process."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run_search(data, config(), str(out))
    return Storage(out)


@pytest.fixture
def folder(data: Interactions, config: Callable[..., SearchConfig], tmp_path: Path) -> Callable[..., Storage]:
    """folder(config): a new run directory with its reference, ready for `search_on_cluster`."""

    def make(config: SearchConfig) -> Storage:
        run = Storage(tmp_path / uuid.uuid4().hex[:8])
        open_reference(data, config, run)
        return run

    return make


class Searching:
    """A search on the cluster, run by a thread of the test. result, error: once it has ended."""

    def __init__(self, ray: Any, data: Interactions, config: SearchConfig, run: Storage, workers: int) -> None:
        self.ray, self.name = ray, f"test-{uuid.uuid4().hex[:8]}"
        self.result: dict[str, float] | None = None
        self.error: BaseException | None = None
        self._what = (data, config, run, workers)
        self._halted: set[int] = set()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        from ciess.cluster.config import ClusterConfig
        from ciess.cluster.search import search_on_cluster
        from ciess.cluster.shared_data import SharedData
        from ciess.config.data import DataConfig

        data, config, run, workers = self._what
        try:
            shared, to = SharedData.of(data, DataConfig(), "driver"), ClusterConfig(workers_per_search=workers)
            self.result = search_on_cluster(shared, config, run, to, name=self.name)
        except BaseException as error:
            self.error = error

    def end(self) -> dict[str, float]:
        """Wait for it; returns its result, or raises its error."""
        until(lambda: not self.thread.is_alive(), "the search ended", 2 * PATIENCE)
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def actor(self) -> Any:
        """Handle of its actor, once there is one."""

        def found() -> Any:
            assert self.error is None, self.error
            named = self.ray.util.list_named_actors(all_namespaces=True)
            own = [actor for actor in named if actor["name"].startswith(self.name)]
            return self.ray.get_actor(own[0]["name"], namespace=own[0]["namespace"]) if own else None

        return until(found, "the search had an actor")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ray.get(self.actor().status.remote(), timeout=PATIENCE)
        return found

    def until_status(self, found: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """The first status of which that is true."""

        def look() -> dict[str, Any] | None:
            status = self.status()
            assert status["failure"] is None, status["failure"]
            return status if found(status) else None

        status: dict[str, Any] = until(look, what)
        return status

    def stop_a_worker_at_a_fit(self) -> tuple[int, int, dict[str, Any]]:
        """Halt a worker (SIGSTOP) that holds a lease, so that it cannot tell; returns rank, pid and the status."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            status = self.until_status(lambda status: status["leases"], "a worker was at a fit")
            rank = next(iter(status["leases"].values()))["rank"]
            pid = status["workers"][rank]["pid"]
            os.kill(pid, signal.SIGSTOP)
            self._halted.add(pid)
            # What it had sent before it was halted arrives now.
            time.sleep(0.2)
            status = self.status()
            if rank in {lease["rank"] for lease in status["leases"].values()}:
                return rank, pid, status
            self.let_go()
        raise AssertionError("no worker could be halted at a fit")

    def let_go(self) -> None:
        """Let halted workers run on; one that was killed is gone."""
        for pid in self._halted:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._halted.clear()

    def clear(self) -> None:
        """End what is left of it, so that the next one finds its CPUs."""
        self.let_go()
        if self.thread.is_alive():
            with contextlib.suppress(Exception):
                self.ray.kill(self.actor(), no_restart=True)
            self.thread.join(30)


@pytest.fixture
def searching(local_ray: Any, data: Interactions) -> Iterator[Callable[..., Searching]]:
    """searching(config, run, workers=1): a search that has been started."""
    begun: list[Searching] = []

    def start(config: SearchConfig, run: Storage, workers: int = 1) -> Searching:
        begun.append(Searching(local_ray, data, config, run, workers))
        return begun[-1]

    yield start
    for search in begun:
        search.clear()


@pytest.fixture
def assert_same(data: Interactions) -> Callable[..., None]:
    """assert_same(run, other): two searches found the same, bit by bit, and would go on alike."""
    from ciess.search.recorder import search_fingerprint
    from ciess.storage.checkpoint import load_checkpoint

    def check(run: Storage, other: Storage, config: SearchConfig) -> None:
        for file in ("candidates.parquet", "history.parquet"):
            tables = [place.read_table(file) for place in (run, other)]
            values = [table.drop_columns([n for n in table.column_names if n.endswith("_seconds")]) for table in tables]
            assert values[0].num_rows and values[0].equals(values[1]), f"{file} differs"
        fingerprint = search_fingerprint(data, config)
        states = [load_checkpoint(place.child("checkpoint"), fingerprint)[0] for place in (run, other)]
        assert states[0] is not None and states[1] is not None
        arrays = [state["arrays"] for state in states if state is not None]
        assert arrays[0].keys() == arrays[1].keys()
        assert len(arrays[0]) > 20
        for name, values in arrays[0].items():
            np.testing.assert_array_equal(values, arrays[1][name], err_msg=name, strict=True)

    return check


# The actor of a search without Ray: tasks of one event loop ask and tell.


@pytest.fixture(scope="session")
def trained(
    planted: Planted, tmp_path_factory: pytest.TempPathFactory, small_search: Callable[..., SearchConfig]
) -> Path:
    """Folder of the reference."""
    folder = tmp_path_factory.mktemp("reference")
    train_reference(planted.data, small_search().recommender(), 0, Storage(folder))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Storage:
    shutil.copytree(trained, tmp_path / "run" / "reference")
    return Storage(tmp_path / "run")


@pytest.fixture
def make(planted: Planted, run: Storage, small_search: Callable[..., SearchConfig]) -> Callable[..., Any]:
    """make(**changes): an actor on `run`, of rounds of two fits; the same call again is what Ray does after a loss."""
    from ciess.cluster.actor import SearchActor
    from ciess.cluster.shared_data import SharedData
    from ciess.config.data import DataConfig

    def start(**changes: Any) -> Any:
        config = small_search(**{"include_equal": False} | changes)
        return SearchActor(SharedData.of(planted.data, DataConfig(), "driver"), config, run)

    return start


@pytest.fixture(scope="session")
def drive() -> Callable[..., None]:
    """drive(test()): runs it to its end, in an event loop of its own."""

    def run(test: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(test, 2 * LONG)

        asyncio.run(bounded())

    return run


@pytest.fixture(scope="session")
def fitted() -> Callable[..., Outcome]:
    """fitted(data, proposal): stands for a short fit."""

    def tell(data: Interactions, proposal: Proposal) -> Outcome:
        quality = np.linspace(0.1, 0.6, data.n_users) * proposal.sizes[: data.n_users] / 16
        return Outcome(*proposal.slot, quality.astype(np.float32), 2.0, 1.0)

    return tell


@pytest.fixture(scope="session")
def asked() -> Callable[..., Awaitable[Proposal]]:
    """await asked(actor, rank, incarnation=1): the fit that this worker gets."""

    async def ask(actor: Any, rank: int, incarnation: int = 1, patience: float = LONG) -> Proposal:
        task = await actor.ask(rank, incarnation, patience)
        assert not task.leave
        assert task.proposal is not None
        return task.proposal

    return ask


@pytest.fixture(scope="session")
def leaves() -> Callable[..., Awaitable[bool]]:
    """await leaves(actor, *ranks, incarnation=1): whether all of these workers are sent home."""

    async def look(actor: Any, *ranks: int, incarnation: int = 1) -> bool:
        tasks = [await actor.ask(rank, incarnation, LONG) for rank in ranks]
        return all(task.leave and task.proposal is None for task in tasks)

    return look
