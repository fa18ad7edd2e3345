"""What the nodes of a cluster have room for, those included that an autoscaler may still start."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
import yaml
from ray._private.state import state
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ciess.cluster.config import TRIAL_CPUS, ClusterConfig
from ciess.errors import PlacementError

UNLIMITED = 1_000
"""Nodes that stand for no limit in an autoscaler's configuration."""

DEFAULT_MAX_WORKERS = 2
"""Ray's own limit of nodes beside the head, where a configuration has none."""

HEAD = "node:__internal_head__"
"""Resource by which Ray marks the head node."""

TRAIN_ACTOR = "AutoscalingCoordinator"
"""Name and namespace of the actor to which Ray Train tells what its workers ask for."""

OPTION = "--autoscaling-config="
"""Of the process of an autoscaler: file with its configuration."""

Resources = Mapping[str, float]
Result = TypeVar("Result")


@dataclass(frozen=True)
class NodeKind:
    """Nodes with the same resources.

    Attributes:
        count: of them, at most.
    """

    resources: Resources
    count: int


def living_nodes() -> list[NodeKind]:
    """The nodes that are there now."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [NodeKind(node["Resources"], 1) for node in nodes if node["Alive"]]


def possible_nodes() -> list[NodeKind]:
    """What an autoscaler may start, none where there is no autoscaler."""
    config = state.get_cluster_config()
    if config is None:
        return configured_nodes(_on_head(_autoscaler_file))
    return [
        NodeKind(dict(group.resources), UNLIMITED if group.max_count < 0 else group.max_count)
        for group in config.node_group_configs
        if group.max_count
    ]


def configured_nodes(text: str | None) -> list[NodeKind]:
    """What the configuration of `ray up` lets its autoscaler start, with the defaults that Ray takes."""
    config = yaml.safe_load(text) if text else {}
    most = config.get("max_workers", DEFAULT_MAX_WORKERS)
    kinds = [
        NodeKind(kind.get("resources") or {}, min(most, kind.get("max_workers", most)))
        for name, kind in config.get("available_node_types", {}).items()
        if name != config["head_node_type"] or "max_workers" in kind
    ]
    return [kind for kind in kinds if kind.count]


def room(need: Resources, kinds: Sequence[NodeKind]) -> int:
    """How often `need` fits, never split between nodes."""
    return sum(kind.count * _times(need, kind.resources) for kind in kinds)


def concurrent_trials(to: ClusterConfig, living: Sequence[NodeKind], possible: Sequence[NodeKind]) -> tuple[int, int]:
    """Search trials, and trials that train by themselves, that may run at a time.

    Args:
        to: workers and their resources.
        living: as `living_nodes` and `possible_nodes` give them.
        possible: as `living_nodes` and `possible_nodes` give them.

    Raises:
        PlacementError: not even one of either can ever be placed.
    """
    # The head stays what it is, whatever an autoscaler starts beside it.
    grown = [*possible, *(kind for kind in living if HEAD in kind.resources)]
    # A trial and its worker may stand on one node, so each worker is counted with a trial's share.
    worker = {**to.worker_resources, "CPU": to.worker_cpus + TRIAL_CPUS}
    searches = max(room(worker, living), room(worker, grown)) // to.workers_per_search
    trainings = max(room(to.training_resources, living), room(to.training_resources, grown))
    if not searches or not trainings:
        _refuse(to.training_resources, to.workers_per_search, living, possible)
    if to.coordinator_resource is not None:
        seats = max(room(to.search_resources, living), room(to.search_resources, grown))
        if not seats:
            _refuse(to.search_resources, 1, living, possible)
        searches = min(searches, seats)
    limit = to.max_concurrent_trials or max(searches, trainings)
    return min(searches, limit), min(trainings, limit)


def keep_nodes_free() -> None:
    """Start what Ray Train would leave behind on the node of this process on the head instead.

    It is an actor that outlives the job. An autoscaler takes its node for busy, and would never end it again; the head
    stays anyway.
    """
    if _other_head() is None:
        return
    try:
        ray.get_actor(TRAIN_ACTOR, namespace=TRAIN_ACTOR)
    except ValueError:
        _on_head(_start_train_actor)


def _other_head() -> str | None:
    """The head node of the cluster, None if this process runs there."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    head = next((node["NodeID"] for node in nodes if node["Alive"] and HEAD in node["Resources"]), None)
    return None if head == ray.get_runtime_context().get_node_id() else head


def _on_head(call: Callable[[], Result]) -> Result:
    """What `call` returns on the head node of the cluster."""
    if (head := _other_head()) is None:
        return call()
    remote: Any = ray.remote(num_cpus=0)(call)
    strategy = NodeAffinitySchedulingStrategy(head, soft=False)
    result: Result = ray.get(remote.options(scheduling_strategy=strategy).remote())
    return result


def _autoscaler_file() -> str | None:
    """The configuration that this cluster's autoscaler was started with on this node.

    Ray's own autoscaler tells nobody about its node types, and until it has started a node of a type, nothing else in
    the cluster knows of it.
    """
    cluster = f"--gcs-address={ray.get_runtime_context().gcs_address}"
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            # The process has ended in the meantime.
            continue
        given = [word.removeprefix(OPTION) for word in words if word.startswith(OPTION)]
        if given and cluster in words:
            return Path(given[0]).expanduser().read_text()
    return None


def _start_train_actor() -> None:
    # Where another Ray has it elsewhere, or no longer, a node may stay idle, but nothing breaks.
    with contextlib.suppress(ImportError):
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
            get_or_create_autoscaling_coordinator,
        )

        actor: Any = get_or_create_autoscaling_coordinator()  # type: ignore[no-untyped-call]
        ray.get(actor.__ray_ready__.remote())


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
