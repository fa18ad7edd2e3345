"""Ray clusters of several nodes on this machine, with or without an autoscaler, beside whatever else runs here.

`ray.cluster_utils.AutoscalingCluster` would do, but ends every Ray process of the machine and needs a file that the
wheel lacks. Here a node is a child of this process, its own processes are below it, and only those are ended. Ports
are free ones, and nobody connects: what a node runs is read from /proc.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider
from ray.util import get_node_ip_address

REPOSITORY = Path(__file__).resolve().parents[2]

START_SECONDS = 120.0
"""How long a node may take to start, on a machine that is busy otherwise."""

OBJECT_STORE_BYTES = 100_000_000
"""Of each node: all of them share the memory of one machine."""


class FakeProvider(FakeMultiNodeProvider):
    """Starts nodes on this machine; Ray imports it by its name, as it would a provider of somebody else's."""


@dataclass(frozen=True)
class Process:
    """A process of a node. title: its command, or what Ray has renamed it to."""

    pid: int
    parent: int
    title: str


class Tree:
    """A command in a session of its own, and all processes that come from it."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        settings = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SCHEDULER_EVENTS": "0"}
        output: IO[bytes]
        with log.open("wb") as output:
            self.root = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**plain, **settings, **(environment or {})},
                start_new_session=True,
            )

    def processes(self) -> list[Process]:
        """The command and what comes from it, parents first."""
        children: dict[int, list[Process]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                # It has ended in the meantime.
                continue
            if state != "Z":
                process = Process(int(folder.name), int(parent), " ".join(words).strip())
                children.setdefault(process.parent, []).append(process)
        found = [process for process in children.get(os.getpid(), []) if process.pid == self.root.pid]
        for process in found:
            found += children.get(process.pid, [])
        return found

    def text(self) -> str:
        """What the command has printed."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """End all of it at once, without a chance to say good-bye."""
        while found := self.processes():
            for process in found:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.root.poll()
            time.sleep(0.05)
        self.root.wait()


class Cluster:
    """A head, and nodes that are added by hand or by an autoscaler; ended on leaving its `with` block."""

    def __init__(
        self, cpus: int, dashboard: bool = True, workers: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """workers: node types of an autoscaler by name, each with `resources` and `max_workers`; None for none."""
        # Ray's sockets need paths of less than 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="rn", dir="/tmp"))
        self.trees: list[Tree] = []
        gcs, client, page, agent, page_numbers, autoscaler_numbers = free_ports(6)
        self.address = f"{get_node_ip_address()}:{gcs}"
        options = [
            *("--head", f"--port={gcs}", f"--ray-client-server-port={client}", f"--temp-dir={self.folder}"),
            *(f"--include-dashboard={dashboard}", f"--dashboard-port={page}", f"--dashboard-agent-listen-port={agent}"),
        ]
        # Ray Train asks the dashboard which trials were lost, to free what they held, and without an address gives up
        # where several clusters run on one machine.
        self._environment = {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{page}"}
        environment = {
            "DASHBOARD_METRIC_PORT": str(page_numbers),
            "AUTOSCALER_METRIC_PORT": str(autoscaler_numbers),
        }
        if workers is not None:
            file = self.folder / "autoscaler.json"
            file.write_text(json.dumps(self._autoscaler(cpus, workers)))
            options.append(f"--autoscaling-config={file}")
            environment |= {
                "RAY_enable_autoscaler_v2": "1",
                "RAY_FAKE_CLUSTER": "1",
                "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "PYTHONPATH": str(Path(__file__).parent),
            }
        self.head = self._start(cpus, options, environment)

    def add(self, cpus: int) -> Tree:
        """One more node, once it has joined."""
        (agent,) = free_ports(1)
        return self._start(cpus, [f"--address={self.address}", f"--dashboard-agent-listen-port={agent}"], {})

    def nodes(self) -> dict[int, str]:
        """Type of each node that the autoscaler has started and not yet ended, by the pid of its raylet."""
        found = {}
        for process in self.head.processes():
            if Path(process.title.partition(" ")[0]).name == "raylet":
                try:
                    words = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
                except OSError:
                    continue
                settings = dict(word.partition("=")[::2] for word in words)
                if "RAY_NODE_TYPE_NAME" in settings:
                    found[process.pid] = settings["RAY_NODE_TYPE_NAME"]
        return found

    def placed(self) -> set[tuple[str, str]]:
        """What runs where: titles that Ray gives to processes, and types of the autoscaler's nodes."""
        nodes = self.nodes()
        return {
            (process.title.removeprefix("ray::"), nodes[process.parent])
            for process in self.head.processes()
            if process.title.startswith("ray::") and process.parent in nodes
        }

    def sweep(self, *arguments: Any) -> Tree:
        """`ray_jobs/sweep.py` on this cluster."""
        tree = sweep(self.folder / f"sweep{len(self.trees)}.log", "--address", self.address, *arguments)
        self.trees.append(tree)
        return tree

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        for tree in reversed(self.trees):
            tree.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, cpus: int, options: list[str], environment: dict[str, str]) -> Tree:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--num-cpus={cpus}", *options]
        # Several nodes on one machine would fight over the range that a node takes otherwise.
        command += ["--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        tree = Tree(command, self.folder / f"node{len(self.trees)}.log", self._environment | environment)
        self.trees.append(tree)
        try:
            wait(lambda: tree.root.poll() is not None or "Ray runtime started" in tree.text(), tree, START_SECONDS)
            assert tree.root.poll() is None, tree.text()
        except BaseException:
            self.__exit__()
            raise
        return tree

    def _autoscaler(self, cpus: int, workers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        provider = {
            "type": "external",
            "module": f"{Path(__file__).stem}.{FakeProvider.__name__}",
            "gcs_address": self.address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
        }
        # The provider knows its head by this name.
        head = "ray.head.default"
        types = {head: {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0}}
        for name, kind in workers.items():
            resources = {"object_store_memory": OBJECT_STORE_BYTES, **kind["resources"]}
            types[name] = {"node_config": {}, "min_workers": 0, **kind, "resources": resources}
        commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        return {
            "cluster_name": "fake",
            "provider": provider,
            "max_workers": sum(kind["max_workers"] for kind in workers.values()),
            "available_node_types": types,
            "head_node_type": head,
            # Long enough that nodes outlive the pause between two stages of a sweep, mostly.
            "idle_timeout_minutes": 0.2,
            "upscaling_speed": 10,
            "auth": {},
            "docker": {},
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            **{f"{name}_commands": [] for name in commands},
        }


def sweep(log: Path, *arguments: Any, **environment: str) -> Tree:
    """`ray_jobs/sweep.py` as a process of its own."""
    command = [sys.executable, str(REPOSITORY / "ray_jobs/sweep.py"), *map(str, arguments)]
    return Tree(command, log, {"PYTHONUNBUFFERED": "1", **environment})


def wait(found: Callable[[], Any], tree: Tree, seconds: float) -> Any:
    """What `found` returns once that is true; `tree`: whose words explain why it never is."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"waited {seconds:g} s in vain; {tree.root.args} has printed:\n{tree.text()}"
        time.sleep(0.1)
    return value


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
