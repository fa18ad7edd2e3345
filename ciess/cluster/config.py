"""How a sweep is spread over a cluster. None of it changes a result, so a sweep may go on with other values."""

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ciess.config.types import Frozen

TRIAL_CPUS = 0.01
"""CPUs of a search trial: it waits for its workers, but Ray Tune does not start a trial that takes nothing."""


class ClusterConfig(Frozen):
    """Workers, resources and limits."""

    workers_per_search: PositiveInt = 1
    """Ray Train workers that fit the lanes of a search in parallel."""
    cpus_per_worker: Annotated[float, Field(ge=0.1)] = 1.0
    """CPUs of a worker, and of a trial that trains by itself. A worker asks for 0.02 less, see `worker_cpus`."""
    gpus_per_worker: NonNegativeFloat = 0.0
    """GPUs of a worker, and of a trial that trains by itself; 0.25 lets four share one."""
    read_data_on: Literal["driver", "workers"] = "driver"
    """`driver`: the data is read once and goes to the others through Ray's object store; `workers`: every process reads
    it by itself, from a path that all nodes see."""
    max_concurrent_trials: PositiveInt | None = None
    """Trials at a time; None takes as many as the cluster, grown to its limits, has room for."""
    coordinator_resource: str | None = None
    """Custom resource of the nodes that carry search trials and their actors; None places them anywhere."""
    max_failures: NonNegativeInt = 5
    """Times that a trial is started again after its process or node was lost."""
    start_timeout_minutes: PositiveFloat = 15.0
    """How long a search waits for its workers, nodes that have to boot included, before it gives up."""

    @property
    def worker_cpus(self) -> float:
        """CPUs that a Ray Train worker asks for: the shares of its trial must fit beside it on whole CPUs."""
        return float(Fraction(str(self.cpus_per_worker)) - 2 * Fraction(str(TRIAL_CPUS)))

    @property
    def worker_resources(self) -> dict[str, float]:
        """What a Ray Train worker asks for."""
        return {"CPU": self.worker_cpus} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})

    @property
    def search_resources(self) -> dict[str, float]:
        """What a search trial asks for beside its workers."""
        named = {self.coordinator_resource: TRIAL_CPUS} if self.coordinator_resource else {}
        return {"CPU": TRIAL_CPUS} | named

    @property
    def training_resources(self) -> dict[str, float]:
        """What a trial asks for that trains by itself: a reference, a retraining, a table."""
        return {"CPU": self.cpus_per_worker} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})
