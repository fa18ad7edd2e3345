"""How many trials a cluster has room for, on nodes made up here."""

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from ciess.cluster import placement
from ciess.cluster.config import TRIAL_CPUS, ClusterConfig
from ciess.cluster.placement import HEAD, UNLIMITED, NodeKind, concurrent_trials, living_nodes, possible_nodes, room
from ciess.errors import PlacementError

AMOUNTS = st.integers(1, 800).map(lambda hundredths: hundredths / 100)


def node(count: int = 1, **resources: float) -> NodeKind:
    return NodeKind(resources, count)


def trials(living: list[NodeKind], possible: list[NodeKind] | None = None, **settings: Any) -> tuple[int, int]:
    return concurrent_trials(ClusterConfig(**settings), living, possible or [])


class TestRoom:
    def test_a_need_is_never_split_between_nodes(self) -> None:
        kinds = [node(CPU=3.0), node(2, CPU=1.0)]
        assert room({"CPU": 1.0}, kinds) == 5
        assert room({"CPU": 2.0}, kinds) == 1
        assert room({"CPU": 4.0}, kinds) == 0

    def test_the_scarcest_resource_counts(self) -> None:
        kinds = [node(CPU=64.0, GPU=2.0), node(CPU=64.0)]
        assert room({"CPU": 4.0, "GPU": 0.25}, kinds) == 8
        assert room({"CPU": 16.0, "GPU": 0.25}, kinds) == 4
        assert room({"CPU": 1.0, "on_demand": 0.01}, kinds) == 0

    @pytest.mark.parametrize(
        ("has", "amount", "fits"), [(0.3, 0.1, 3), (2.1, 0.7, 3), (1.0, 0.01, 100), (0.29, 0.1, 2)]
    )
    def test_binary_fractions_take_none_away(self, has: float, amount: float, fits: int) -> None:
        assert room({"CPU": amount}, [node(CPU=has)]) == fits

    @given(
        need=st.dictionaries(st.sampled_from(["CPU", "GPU", "disk"]), AMOUNTS, min_size=1),
        kinds=st.lists(
            st.tuples(st.dictionaries(st.sampled_from(["CPU", "GPU", "disk"]), AMOUNTS), st.integers(0, 5)), max_size=4
        ),
    )
    def test_beside_taking_it_from_one_node_after_another(
        self, need: dict[str, float], kinds: list[tuple[dict[str, float], int]]
    ) -> None:
        placed = 0
        for resources, count in kinds:
            left = {name: Fraction(str(amount)) for name, amount in resources.items()}
            times = 0
            while all(left.get(name, 0) >= Fraction(str(amount)) for name, amount in need.items()):
                for name, amount in need.items():
                    left[name] -= Fraction(str(amount))
                times += 1
            placed += count * times
        assert room(need, [NodeKind(resources, count) for resources, count in kinds]) == placed


class TestConcurrentTrials:
    def test_a_laptop_of_two_cpus(self) -> None:
        assert trials([node(CPU=2.0)]) == (2, 2)
        assert trials([node(CPU=2.0)], workers_per_search=2) == (1, 2)
        assert trials([node(CPU=2.0)], cpus_per_worker=2) == (1, 1)
        assert trials([node(CPU=2.0)], cpus_per_worker=0.5) == (4, 4)

    def test_workers_of_a_search_may_stand_on_several_nodes(self) -> None:
        kinds = [node(CPU=3.0)] * 3
        assert trials(kinds, workers_per_search=3) == (3, 9)
        # One worker of two CPUs fits on each node, the third CPU of each is too little.
        assert trials(kinds, workers_per_search=3, cpus_per_worker=2) == (1, 3)

    def test_what_an_autoscaler_may_start_counts(self) -> None:
        """It is not added to what is there: that may be the same nodes."""
        head, workers = node(CPU=2.0), node(5, CPU=4.0)
        assert trials([head], [workers]) == (20, 20)
        assert trials([head], [workers], workers_per_search=3) == (6, 20)
        assert trials([node(CPU=32.0)], [workers]) == (32, 32)
        assert trials([head], [node(UNLIMITED, CPU=1.0)]) == (UNLIMITED, UNLIMITED)

    def test_the_head_counts_beside_what_an_autoscaler_may_start(self) -> None:
        head, more = NodeKind({"CPU": 1, HEAD: 1}, 1), NodeKind({"CPU": 2}, 1)
        assert concurrent_trials(ClusterConfig(workers_per_search=3), [head], [more]) == (1, 3)

    def test_coordinators_have_seats_for_searches_alone(self) -> None:
        seat = node(CPU=1.0, on_demand=0.03)
        kinds = [seat, node(8, CPU=1.0)]
        assert trials(kinds, coordinator_resource="on_demand") == (3, 9)
        assert trials(kinds) == (9, 9)
        assert trials([node(CPU=2.0)], kinds, coordinator_resource="on_demand") == (3, 9)

    def test_never_more_than_asked_for(self) -> None:
        kinds = [node(CPU=8.0)]
        assert trials(kinds, max_concurrent_trials=3) == (3, 3)
        assert trials(kinds, max_concurrent_trials=3, workers_per_search=4) == (2, 3)
        assert trials(kinds, max_concurrent_trials=99) == (8, 8)

    def test_gpus_limit_both(self) -> None:
        kinds = [node(CPU=64.0), node(2, CPU=16.0, GPU=1.0)]
        assert trials(kinds, gpus_per_worker=0.25) == (8, 8)
        assert trials(kinds, gpus_per_worker=1, workers_per_search=2) == (1, 2)

    @given(
        cpus=st.lists(st.integers(1, 64), min_size=1, max_size=4),
        workers=st.integers(1, 4),
        each=st.sampled_from([0.1, 0.25, 0.5, 1.0, 2.0, 3.0]),
    )
    def test_all_of_them_can_be_placed_at_once(self, cpus: list[int], workers: int, each: float) -> None:
        """Every worker with a trial's share beside it, so no group waits for what trials have taken."""
        settings = {"workers_per_search": workers, "cpus_per_worker": each}
        kinds = [node(CPU=float(count)) for count in cpus]
        to, places = ClusterConfig(**settings), 0
        share = Fraction(str(to.worker_cpus)) + Fraction(str(TRIAL_CPUS))
        for count in cpus:
            places += math.floor(count / share)
        if places < workers or not any(count >= each for count in cpus):
            with pytest.raises(PlacementError):
                trials(kinds, **settings)
            return
        searches, trainings = trials(kinds, **settings)
        assert workers * searches <= places < workers * (searches + 1)
        assert trainings == sum(math.floor(count / Fraction(str(each))) for count in cpus)


class TestRefusal:
    def test_a_gpu_where_there_is_none(self) -> None:
        living = [
            node(CPU=2.0, memory=4e9, object_store_memory=1e9, **{"node:10.0.0.1": 1.0, "accelerator_type:T4": 1.0})
        ]
        with pytest.raises(PlacementError) as caught:
            trials(living, [node(4, CPU=16.0, spot=1.0)], gpus_per_worker=0.5)
        assert str(caught.value) == (
            "Nothing in this cluster has room for 1 CPU and 0.5 GPU: its nodes have 1 x (2 CPU), and its autoscaler "
            "may start 4 x (16 CPU, 1 spot). Expected room for every worker of a search on some node. Ask for less by "
            "--workers-per-search, --cpus-per-worker, --gpus-per-worker or --coordinator-resource, or add such nodes."
        )

    def test_more_workers_than_there_is_room_for(self) -> None:
        with pytest.raises(PlacementError) as caught:
            trials([node(CPU=2.0)], workers_per_search=3)
        assert str(caught.value).startswith(
            "Nothing in this cluster has room for 3 times 1 CPU: its nodes have 1 x (2 CPU), and its autoscaler may "
            "start nothing. Expected"
        )

    def test_coordinators_that_nobody_is(self) -> None:
        with pytest.raises(PlacementError) as caught:
            trials([node(CPU=2.0)], coordinator_resource="on_demand")
        assert str(caught.value).startswith("Nothing in this cluster has room for 0.01 CPU and 0.01 on_demand: its ")

    def test_no_nodes_at_all(self) -> None:
        with pytest.raises(PlacementError, match="its nodes have nothing, and its autoscaler may start nothing"):
            trials([])


class TestNodes:
    def test_dead_nodes_do_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
        monkeypatch.setattr(ray, "nodes", lambda: nodes)
        assert living_nodes() == [node(CPU=2.0)]

    def test_the_groups_of_an_autoscaler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A group of no nodes cannot be started; -1 stands for as many as wanted."""
        groups = [SimpleNamespace(resources={"CPU": float(count + 9)}, max_count=count) for count in (-1, 0, 3)]
        state = SimpleNamespace(get_cluster_config=lambda: SimpleNamespace(node_group_configs=groups))
        monkeypatch.setattr(placement, "state", state)
        assert possible_nodes() == [node(UNLIMITED, CPU=8.0), node(3, CPU=12.0)]

    def test_without_an_autoscaler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(placement, "state", SimpleNamespace(get_cluster_config=lambda: None))
        monkeypatch.setattr(placement, "_on_head", lambda _: None)
        assert possible_nodes() == []
