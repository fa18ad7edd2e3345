"""What the nodes of a cluster have room for, those included that an autoscaler may still start."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import state

from ciess.cluster.cluster_config import TRIAL_CPUS, ClusterConfig
from ciess.errors import PlacementError

UNLIMITED = 1_000
"""Nodes that stand for no limit in an autoscaler's configuration."""

Resources = Mapping[str, float]


@dataclass(frozen=True)
class NodeKind:
    """Nodes with the same resources. count: of them, at most."""

    resources: Resources
    count: int


def living_nodes() -> list[NodeKind]:
    """The nodes that are there now."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [NodeKind(node["Resources"], 1) for node in nodes if node["Alive"]]


def possible_nodes() -> list[NodeKind]:
    """What an autoscaler may start, none where there is no autoscaler."""
    config = state.get_cluster_config()
    groups = [] if config is None else config.node_group_configs
    return [
        NodeKind(dict(group.resources), UNLIMITED if group.max_count < 0 else group.max_count)
        for group in groups
        if group.max_count
    ]


def room(need: Resources, kinds: Sequence[NodeKind]) -> int:
    """How often `need` fits, never split between nodes."""
    return sum(kind.count * _times(need, kind.resources) for kind in kinds)


def concurrent_trials(to: ClusterConfig, living: Sequence[NodeKind], possible: Sequence[NodeKind]) -> tuple[int, int]:
    """Search trials, and trials that train by themselves, that may run at a time.

    living, possible: as `living_nodes` and `possible_nodes` give them. Raises PlacementError where not even one of
    either can ever be placed.
    """
    # A trial and its worker may stand on one node, so each worker is counted with a trial's share.
    worker = {**to.worker_resources, "CPU": to.worker_cpus + TRIAL_CPUS}
    searches = max(room(worker, living), room(worker, possible)) // to.workers_per_search
    trainings = max(room(to.training_resources, living), room(to.training_resources, possible))
    if not searches or not trainings:
        _refuse(to.training_resources, to.workers_per_search, living, possible)
    if to.coordinator_resource is not None:
        seats = max(room(to.search_resources, living), room(to.search_resources, possible))
        if not seats:
            _refuse(to.search_resources, 1, living, possible)
        searches = min(searches, seats)
    limit = to.max_concurrent_trials or max(searches, trainings)
    return min(searches, limit), min(trainings, limit)


def _times(need: Resources, has: Resources) -> int:
    fits = [math.floor(has.get(name, 0.0) / amount + 1e-9) for name, amount in need.items() if amount > 0]
    return min(fits, default=0)


def _refuse(need: Resources, times: int, living: Sequence[NodeKind], possible: Sequence[NodeKind]) -> None:
    asked = " and ".join(f"{amount:g} {name}" for name, amount in need.items())
    raise PlacementError(
        f"Nothing in this cluster has room for {f'{times} times ' if times > 1 else ''}{asked}: its nodes have "
        f"{_describe(living)}, and its autoscaler may start {_describe(possible)}. Expected room for every worker of a "
        "search on some node. Ask for less by --workers-per-search, --cpus-per-worker, --gpus-per-worker or "
        "--coordinator-resource, or add such nodes."
    )


def _describe(kinds: Sequence[NodeKind]) -> str:
    shown = [
        f"{kind.count} x ("
        + ", ".join(
            f"{amount:g} {name}"
            for name, amount in sorted(kind.resources.items())
            if not name.startswith(("node:", "memory", "object_store_memory", "accelerator_type"))
        )
        + ")"
        for kind in kinds
    ]
    return ", ".join(shown) or "nothing"
