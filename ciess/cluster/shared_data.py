"""The interactions as every process of a cluster gets them."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ciess.config.data import DataConfig
from ciess.data import Interactions, Pairs
from ciess.data.source import read_source
from ciess.errors import DataError, InputError


@dataclass(frozen=True, eq=False)
class SharedData:
    """Interactions, or where each process reads them by itself.

    Attributes:
        sha256: what they must then be.
    """

    sha256: str
    interactions: Interactions | None = None
    path: str = ""
    options: DataConfig = field(default_factory=DataConfig)

    @classmethod
    def of(cls, data: Interactions, options: DataConfig, read_on: str) -> "SharedData":
        """Interactions for every process of a cluster.

        Args:
            data: as the driver read it.
            options: how the driver read it.
            read_on: `driver` to send the interactions, `workers` to send their path.

        Returns:
            what is sent.
        """
        if read_on == "driver":
            return cls(data.sha256, data)
        return cls(data.sha256, None, data.source, options)

    def load(self) -> Interactions:
        """The interactions, in memory of this process alone.

        Returns:
            arrays that may be written to.

        Raises:
            DataError: this process cannot read them or finds others; the node is named.
        """
        if self.interactions is not None:
            return _writable(self.interactions)
        node = this_node()
        try:
            found = read_source(self.path, self.options)
        except InputError as error:
            raise DataError(
                f"Node {node} cannot read the data: {error} With --read-data-on workers every node must see the same "
                "path; give a shared folder or a URI, or leave the option out to send the data through Ray."
            ) from error
        if found.sha256 != self.sha256:
            raise DataError(
                f"Node {node} finds other data at {self.path}: sha256 {found.sha256[:12]}, expected "
                f"{self.sha256[:12]}, as the driver read. Give a path that shows the same file on every node."
            )
        return found


def check_nodes(shared: SharedData) -> None:
    """Raise DataError where a node that is there now cannot read the interactions by itself."""
    look = ray.remote(num_cpus=0)(_look)
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    asked = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(shared)
        for node in nodes
        if node["Alive"]
    ]
    for problem in ray.get(asked):
        if problem is not None:
            raise DataError(problem)


def _look(shared: SharedData) -> str | None:
    """What keeps this node from reading the interactions."""
    try:
        shared.load()
    except DataError as error:
        return str(error)
    return None


def this_node() -> str:
    """IP address of the node that this process runs on."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _writable(data: Interactions) -> Interactions:
    """Copies of the pairs: what comes from the object store is read-only memory shared with other processes."""
    train, valid, test = (Pairs(part.users.copy(), part.items.copy()) for part in (data.train, data.valid, data.test))
    return dataclasses.replace(data, train=train, valid=valid, test=test)
