"""The command of a sweep: `python ray_jobs/sweep.py`, alone on a laptop or as a job of a cluster."""

import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import ray
import tyro

from ciess.cli.options import READING, Flat, Said
from ciess.cli.program import later, run_program
from ciess.cluster.config import ClusterConfig
from ciess.cluster.shared_data import this_node
from ciess.cluster.sweep.config import SweepConfig
from ciess.cluster.sweep.sweep import check_settings, run_sweep
from ciess.cluster.workers import NAMESPACE
from ciess.config.data import DataConfig
from ciess.config.methods import ESAPNConfig
from ciess.data.source import read_source
from ciess.errors import DataError, InputError, PlacementError

EXAMPLE = SweepConfig(
    strategies=("kinds",),
    fits=48,
    sparsities=(0.5, 0.75),
    methods=("full", "equal", "sized"),
    max_size=16,
    esapn=ESAPNConfig(sizes=(2, 4, 8, 16)),
)
"""What is run without --data: minutes on two cores, on the embedded planted data."""

# Whether a price was given shows only where None stands for none given.
DEFAULTS = SweepConfig().model_copy(update={"memory_weights": None})
"""Settings of a sweep as the command begins with them."""

CONNECT_SECONDS = 5
"""How long a cluster may take to answer."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` defaults to those of the process."""
    run_program("sweep", _parse, "the same command goes on from here.", arguments)


def connect(address: str | None) -> None:
    """Connect this process to a Ray cluster: that of `address`, of RAY_ADDRESS, or one of its own on this machine.

    Raises:
        PlacementError: none answers within seconds.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise PlacementError(
            f"--address is {address}, a Ray client's, but a sweep is a driver of its own. Expected HOST:PORT as `ray "
            "start` prints it, or auto. On another machine submit it: ray job submit -- python ray_jobs/sweep.py ..."
        )
    if address not in ("local", "auto"):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise _no_cluster(address, str(error)) from error
    # Ray Tune would print boxes and tables of its own.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Workers' own output stays in Ray's log files; the driver prints what happens, a line each.
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        raise _no_cluster(address, str(error)) from error


def sweep(
    data: str = "planted",
    storage: str = "runs",
    name: str = "sweep",
    config: Annotated[SweepConfig, Flat] = DEFAULTS,
    to: Annotated[ClusterConfig, Flat] = ClusterConfig(),  # noqa: B008
    options: Annotated[DataConfig, Flat] = READING,
    address: str | None = None,
) -> None:
    """Search with every combination of settings, retrain the best masks, and put all into one table and pictures.

    The same command again goes on where it was. Without --data a small example runs on embedded data.

    Args:
        data: file, folder or zip archive with interactions, or a URI such as s3://bucket/ml-1m.parquet.
        storage: folder of all sweeps: a path or a URI such as s3://bucket/runs, which all nodes see.
        name: folder of this sweep below it.
        config: what is searched and retrained.
        to: how it is spread over the cluster; may change from sitting to sitting.
        options: how to read the data.
        address: cluster to run on, HOST:PORT or auto; without it the one of RAY_ADDRESS, or one just for this sweep.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "://" not in storage and not Path(storage).is_absolute():
        raise InputError(
            f"--storage is {storage!r}, but a job runs in a copy of its working directory that is deleted after it. "
            "Expected an absolute path or a URI that all nodes see, such as s3://bucket/runs."
        )
    check_settings(config, storage, name, to)
    connect(address)
    try:
        interactions = read_source(data, options)
    except DataError as error:
        raise DataError(f"Node {this_node()}, which this sweep is run from, says: {error}") from error
    for note in interactions.notes:
        print(note, file=sys.stderr)
    print(run_sweep(interactions, config, storage, name, to, options), flush=True)


def _parse(arguments: list[str]) -> Callable[[], None]:
    example = {} if "--data" in Said.by(arguments).options else {"name": "example", "config": EXAMPLE}
    ready: Callable[[], None] = tyro.cli(later(sweep, **example), prog="ray_jobs/sweep.py", args=arguments)
    return ready


def _no_cluster(address: str, reason: str) -> PlacementError:
    return PlacementError(
        f"No Ray cluster answers at {address} ({reason}). Expected the address that `ray start --head` prints, as "
        "HOST:PORT; one that asks for a token needs RAY_AUTH_MODE=token in the environment. Start one, or leave "
        "--address and RAY_ADDRESS out to run on this machine alone."
    )
