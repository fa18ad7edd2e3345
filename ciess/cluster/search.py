"""One search on a cluster: its actor, its workers, and who called waiting for them."""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ciess.cluster.actor import News, SearchActor
from ciess.cluster.config import ClusterConfig
from ciess.cluster.placement import keep_nodes_free
from ciess.cluster.shared_data import SharedData
from ciess.cluster.workers import NAMESPACE, PATIENCE, Workers
from ciess.config.search import SearchConfig
from ciess.errors import CiessError, FitError, PlacementError
from ciess.storage.storage import Storage

OnRound = Callable[[Sequence[dict[str, Any]]], None]
"""Called with the rows of history.parquet of a completed round, one a lane."""


def search_on_cluster(
    shared: SharedData,
    config: SearchConfig,
    run: Storage,
    to: ClusterConfig,
    on_round: OnRound = lambda _: None,
    name: str = "search",
) -> dict[str, float]:
    """Run a search to its end with Ray Train workers, from its last checkpoint where there is one.

    Args:
        shared: the interactions, as each process gets them.
        config: settings of the search.
        run: run directory of the search with a finished reference; history.parquet and candidates.parquet are written
            there, as `ciess.run_search` writes them, whatever the number of workers.
        to: workers and their resources.
        on_round: called for all rounds, those of an earlier sitting included.
        name: of the actor, with an ending of its own.

    Returns:
        seconds: `start` until the first worker asked for a fit, `search` from there to the last outcome, `end` until
        the workers had gone.

    Raises:
        FitError: a fit broke down; it has that fit's words.
        PlacementError: no workers could be started.
    """
    begun = time.time()
    actor_name = f"{name}-{uuid.uuid4().hex[:8]}"
    keep_nodes_free()
    held = ray.put(shared)
    # The actor must not sit on a node that its trial does not depend on anyway, nor in the trial's own resources.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"name": actor_name, "namespace": NAMESPACE, "num_cpus": 0, "scheduling_strategy": here}
    remote: Any = ray.remote(SearchActor)
    actor = remote.options(**options, max_restarts=-1, max_task_retries=-1).remote(held, config, run)
    try:
        workers = Workers(actor_name, held, config, run, to)
        _watch(actor, workers, config.lanes, on_round)
        ray.get(actor.close.remote())
        status = ray.get(actor.status.remote())
        workers.join()
    except ray.exceptions.RayActorError as error:
        raise CiessError(f"The actor of {name} could not be kept: {error}") from error
    run.child("workers").delete()
    asked, told = status["first_ask"] or time.time(), status["last_tell"] or time.time()
    return {"start": asked - begun, "search": told - asked, "end": time.time() - told}


def _watch(actor: Any, workers: Workers, lanes: int, on_round: OnRound) -> None:
    """Report rounds until the search is done."""
    reported = 0
    while True:
        ended = workers.ended
        news: News = ray.get(actor.news.remote(reported, PATIENCE))
        for start in range(0, len(news.rows), lanes):
            on_round(news.rows[start : start + lanes])
        reported += len(news.rows)
        if news.failure is not None:
            ray.get(actor.close.remote())
            workers.join()
            raise FitError(news.failure)
        if news.done:
            return
        if ended and workers.error is None:
            # They were sent home by an actor that was lost before it said why. What failed then fails again.
            raise RuntimeError("The workers of this search have left before it was done.")
        if workers.error is not None:
            raise PlacementError(
                f"The workers of this search could not be kept: {workers.error}. Expected room for "
                f"{workers.asked_for}. Ask for less by --workers-per-search, --cpus-per-worker and --gpus-per-worker, "
                "add nodes, or wait longer by --start-timeout-minutes."
            )
