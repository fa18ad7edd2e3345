"""Sweeps on clusters whose nodes come and go: no result depends on them, and what cannot be placed is refused."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ciess.cluster.placement import NodeKind, configured_nodes
from ciess.data.planted import Planted

from .fake_autoscaling import REPOSITORY, Cluster, Tree, sweep, wait

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SWEEP_SECONDS = 600.0
"""How long a sweep may take on a machine that is busy otherwise."""

WORKER = "RayTrainWorker"
"""In the title of a process that fits."""

TYPES = {
    "coordinator": {"resources": {"CPU": 1, "seat": 1}, "max_workers": 1},
    "fitter": {"resources": {"CPU": 2}, "max_workers": 2},
}


@pytest.fixture(scope="module")
def arguments(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Any]]:
    """arguments(storage, epochs): of a sweep of two searches; epochs of a fit decide how long they take."""
    parts = (planted.data.train, planted.data.valid, planted.data.test)
    file = tmp_path_factory.mktemp("data") / "pairs.csv"
    rows = [f"{user},{item}" for part in parts for user, item in zip(part.users, part.items, strict=True)]
    file.write_text("\n".join(["user_id,item_id", *rows]))

    def make(storage: Path, epochs: int) -> list[Any]:
        return [
            *("--data", file, "--storage", storage, "--name", "sweep"),
            *("--memory-weights", 0.2, 0.6, "--sparsities", 0.3, "--candidates", 1, "--methods", "equal"),
            *("--episodes", 2, "--iterations", 4, "--max-size", 8),
            *("--settings", "training.max-epochs=10", "training.batch-size=500", "training.learning-rate=0.05"),
            *("training.decay=5e-4", f"short-fit.epochs={epochs}", "agent.hidden=32", "agent.batch-size=64"),
        ]

    return make


def results(storage: Path) -> pa.Table:
    """Rows of a sweep without times; their order does not depend on when they were found."""
    table = pq.read_table(storage / "sweep/results.parquet")
    return table.drop_columns([name for name in table.column_names if name.endswith("seconds")])


def ended(tree: Tree) -> str:
    """What a sweep has printed once it has ended well."""
    wait(lambda: tree.root.poll() is not None, tree, SWEEP_SECONDS)
    assert tree.root.returncode == 0, tree.text()
    return tree.text()


class TestConfiguredNodes:
    def test_of_the_cluster_that_comes_with_the_project(self) -> None:
        assert configured_nodes((REPOSITORY / "cluster.yaml").read_text()) == [
            NodeKind({"CPU": 8, "coordinator": 100}, 1),
            NodeKind({"CPU": 4, "GPU": 1}, 8),
        ]

    def test_what_is_left_out_is_as_ray_takes_it(self) -> None:
        """The head is not started again, two nodes are the most, and no type has more than there may be of all."""
        types = {"head": {}, "plain": {"resources": {"CPU": 1}}, "many": {"max_workers": 9}, "none": {"max_workers": 0}}
        text = json.dumps({"head_node_type": "head", "available_node_types": types})
        assert configured_nodes(text) == [NodeKind({"CPU": 1}, 2), NodeKind({}, 2)]

    def test_of_a_cluster_without_an_autoscaler(self) -> None:
        assert configured_nodes(None) == []


class TestLostNode:
    EPOCHS = 100

    @pytest.fixture
    def undisturbed(self, arguments: Callable[..., list[Any]], tmp_path: Path) -> Iterator[pa.Table]:
        """Results of the same sweep on a Ray of its own."""
        folder = tempfile.mkdtemp(prefix="rn", dir="/tmp")
        tree = sweep(tmp_path / "alone.log", *arguments(tmp_path / "alone", self.EPOCHS), RAY_TMPDIR=folder)
        try:
            ended(tree)
        finally:
            tree.kill()
            shutil.rmtree(folder, ignore_errors=True)
        return results(tmp_path / "alone")

    def test_sweep_ends_on_what_is_left_with_the_same_results(
        self, arguments: Callable[..., list[Any]], undisturbed: pa.Table, tmp_path: Path
    ) -> None:
        storage = tmp_path / "disturbed"
        with Cluster(cpus=1) as cluster:
            lost = cluster.add(cpus=2)
            tree = cluster.sweep(*arguments(storage, self.EPOCHS))

            def amid_a_search() -> bool:
                assert tree.root.poll() is None, tree.text()
                histories = list(storage.glob("sweep/searches/*/history.parquet"))
                return bool(histories) and any(WORKER in process.title for process in lost.processes())

            wait(amid_a_search, tree, SWEEP_SECONDS)
            lost.kill()
            assert not list(storage.glob("sweep/searches/*/seconds.json"))
            ended(tree)
        assert results(storage).equals(undisturbed)


class TestAutoscaling:
    @pytest.fixture(scope="class")
    def cluster(self) -> Iterator[Cluster]:
        """A head without CPUs, beside which nothing runs until something is asked for."""
        with Cluster(cpus=0, dashboard=False, workers=TYPES) as cluster:
            yield cluster

    def test_what_no_node_type_has_is_refused_within_a_minute(
        self, cluster: Cluster, arguments: Callable[..., list[Any]], tmp_path: Path
    ) -> None:
        begun = time.monotonic()
        tree = cluster.sweep(*arguments(tmp_path, 1), "--gpus-per-worker", 1)
        wait(lambda: tree.root.poll() is not None, tree, 60)
        assert time.monotonic() - begun < 60
        assert tree.root.returncode == 2
        assert "Nothing in this cluster has room for 1 CPU and 1 GPU" in tree.text()
        assert "its autoscaler may start 1 x (1 CPU, 1 seat), 2 x (2 CPU)." in tree.text()
        assert "Traceback" not in tree.text()
        assert not cluster.nodes()

    def test_nodes_come_for_a_sweep_and_go_after_it(
        self, cluster: Cluster, arguments: Callable[..., list[Any]], tmp_path: Path
    ) -> None:
        """Trials of searches and their actors sit on coordinators, fits where there are two CPUs."""
        assert not cluster.nodes()
        tree = cluster.sweep(*arguments(tmp_path, 20), "--cpus-per-worker", 2, "--coordinator-resource", "seat")
        nodes: dict[int, str] = {}
        placed: set[tuple[str, str]] = set()

        def watched() -> bool:
            nodes.update(cluster.nodes())
            placed.update(cluster.placed())
            return tree.root.poll() is not None

        wait(watched, tree, SWEEP_SECONDS)
        assert "2 searches of 1 workers, 2 trainings" in ended(tree)
        assert set(nodes.values()) == set(TYPES)
        for title, kind in (("SearchActor", "coordinator"), (WORKER, "fitter")):
            assert {place for name, place in placed if title in name} == {kind}
        assert results(tmp_path).num_rows
        wait(lambda: not cluster.nodes(), cluster.head, 120)
