"""The workers of one search: a Ray Train group whose members fit what the search's actor proposes.

Starting a group takes seconds, a task milliseconds, so the group stays for the whole search. Sizes come in and users'
qualities go out; data and graph are loaded once a worker.
"""

import os
import threading
import time
import traceback
import uuid
from typing import Any

import ray
import ray.train
from ray.train import ScalingConfig
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import FailureConfig, RunConfig

from ciess.cluster.config import ClusterConfig
from ciess.cluster.shared_data import SharedData, this_node
from ciess.config.search import SearchConfig
from ciess.errors import CiessError
from ciess.search.reference import train_reference
from ciess.search.short_fit import short_fit, starting_weights
from ciess.storage.storage import Storage

NAMESPACE = "ciess"
"""Ray namespace of the actors."""

PATIENCE = 10.0
"""Seconds that a question waits at the actor before it is asked again."""

GROUP_START_SECONDS = 60
"""Seconds that Ray Train waits for the resources of a group before it tries again (its default)."""


class Workers:
    """The worker group of one search, started and kept by a thread."""

    def __init__(
        self,
        actor_name: str,
        shared: "ray.ObjectRef[SharedData]",
        config: SearchConfig,
        run: Storage,
        to: ClusterConfig,
    ) -> None:
        """material: in the object store. run: run directory with the reference. to: workers and their resources."""
        self.error: BaseException | None = None
        self._settings = {"actor": actor_name, "material": shared, "config": config, "run": run}
        self._to, self._run = to, run
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def asked_for(self) -> str:
        """The resources of the group, in words."""
        each = " and ".join(f"{amount:g} {name}" for name, amount in self._to.worker_resources.items())
        return f"{self._to.workers_per_search} x {each}"

    @property
    def ended(self) -> bool:
        """Whether the group is gone for good."""
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait until the group has ended; the actor sends it home."""
        self._thread.join()

    def _keep(self) -> None:
        while True:
            try:
                self._trainer().fit()
                return
            except ray.exceptions.RayActorError:
                # Ray Train's own controller was lost, and its workers with it.
                continue
            except Exception as error:
                self.error = error
                return

    def _trainer(self) -> TorchTrainer:
        attempts = max(1, round(60 * self._to.start_timeout_minutes / GROUP_START_SECONDS))
        folder = self._run.child("workers")
        return TorchTrainer(
            fit_loop,
            train_loop_config=self._settings,
            # Workers exchange nothing but a number; NCCL would refuse two of them on one GPU.
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(
                num_workers=self._to.workers_per_search,
                use_gpu=self._to.gpus_per_worker > 0,
                resources_per_worker=self._to.worker_resources,
            ),
            run_config=RunConfig(  # type: ignore[arg-type]
                name=uuid.uuid4().hex,
                storage_path=folder.root,
                storage_filesystem=folder.filesystem,
                # The actor ends a search whose workers are lost again and again without a finished fit.
                failure_config=FailureConfig(max_failures=-1, controller_failure_limit=attempts),
            ),
        )


def fit_loop(settings: dict[Any, Any]) -> None:
    """What each worker runs: ask, fit, tell until the actor sends it home."""
    rank = ray.train.get_context().get_world_rank()
    incarnation = broadcast_from_rank_zero(time.time_ns())
    try:
        actor = ray.get_actor(settings["actor"], namespace=NAMESPACE)
    except ValueError:
        # It is gone, and its search with it.
        return
    try:
        _fit_all(rank, incarnation, actor, settings)
    except ray.exceptions.ActorDiedError:
        # For good, not to be restarted: there is nobody to work for, so the group must give its resources back.
        return
    except ray.exceptions.RayError:
        raise
    except CiessError as error:
        ray.get(actor.fail.remote(str(error)))
    except Exception:
        # Ray Train would start the group again, and again, for what fails every time.
        ray.get(actor.fail.remote(f"A worker on {this_node()} failed: {traceback.format_exc()}"))


def _fit_all(rank: int, incarnation: int, actor: Any, settings: dict[str, Any]) -> None:
    data, config = ray.get(settings["material"]).load(), settings["config"]
    reference = train_reference(data, config.started(), config.seed, settings["run"].child("reference"))
    start = starting_weights(config, reference.weights)
    ray.get(actor.hello.remote(rank, incarnation, os.getpid(), this_node()))
    while not (task := ray.get(actor.ask.remote(rank, incarnation, PATIENCE))).leave:
        if task.proposal is not None:
            ray.get(actor.tell.remote(short_fit(data, config, task.proposal, start)))
