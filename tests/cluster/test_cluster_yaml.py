"""cluster.yaml against Ray's own validator, and what it promises about where things run."""

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError

ROOT = Path(__file__).parents[2]
Config = dict[str, Any]


@pytest.fixture
def written() -> Config:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def validated(config: Config) -> Config:
    """The config as `ray up` completes and checks it; needs neither the provider's SDK nor a network."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.fixture
def cluster(written: Config) -> Config:
    return validated(written)


@pytest.fixture
def node_types(cluster: Config) -> dict[str, Config]:
    return cluster["available_node_types"]


def is_spot(node_type: Config) -> bool:
    return node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"


def test_the_head_takes_no_fits(cluster: Config, node_types: dict[str, Config]) -> None:
    head = node_types[cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert not is_spot(head)


def test_search_trials_and_actors_have_an_on_demand_cpu_node(node_types: dict[str, Config]) -> None:
    (node_type,) = [t for t in node_types.values() if "coordinator" in t["resources"]]
    assert not is_spot(node_type)
    assert node_type["resources"]["coordinator"] >= 1
    assert node_type["resources"]["CPU"] >= 1
    assert "GPU" not in node_type["resources"]
    assert node_type["max_workers"] >= 1


def test_gpus_are_spot_and_cost_nothing_while_nothing_runs(cluster: Config, node_types: dict[str, Config]) -> None:
    gpus = [t for t in node_types.values() if t["resources"].get("GPU")]
    assert gpus
    for node_type in gpus:
        assert is_spot(node_type)
        assert node_type["min_workers"] == 0
        assert node_type["max_workers"] >= 1
    assert 0 < cluster["idle_timeout_minutes"] <= 10
    assert cluster["provider"]["cache_stopped_nodes"] is False


def test_no_node_type_is_held_below_its_maximum(cluster: Config, node_types: dict[str, Config]) -> None:
    assert cluster["max_workers"] == sum(t["max_workers"] for t in node_types.values())


def test_every_node_reaches_the_bucket(node_types: dict[str, Config]) -> None:
    for node_type in node_types.values():
        assert node_type["node_config"]["IamInstanceProfile"]


@pytest.mark.parametrize("commands", ["head_setup_commands", "worker_setup_commands"])
def test_every_node_installs_the_project_at_the_tested_versions(
    cluster: Config, node_types: dict[str, Config], commands: str
) -> None:
    assert cluster["file_mounts"]["~/project"] == "."
    assert (ROOT / "constraints.txt").is_file()
    assert "cd ~/project && pip install -c constraints.txt -e ." in cluster[commands]
    assert not any("worker_setup_commands" in t for t in node_types.values())  # would replace the shared ones


def test_every_node_gets_the_token(cluster: Config) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in ("head_setup_commands", "worker_setup_commands"):
        assert any("RAY_AUTH_MODE=token" in command for command in cluster[commands])


def test_the_head_scales_and_takes_jobs_and_workers_find_it(cluster: Config) -> None:
    head, worker = cluster["head_start_ray_commands"][-1], cluster["worker_start_ray_commands"][-1]
    for option in ("--head", "--port=6379", "--autoscaling-config=~/ray_bootstrap_config.yaml", "--dashboard-host="):
        assert option in head
    assert "--address=$RAY_HEAD_IP:6379" in worker


def test_the_commands_are_bash(cluster: Config) -> None:
    for key, commands in cluster.items():
        if key.endswith("_commands"):
            for command in commands:
                subprocess.run(["bash", "-n", "-c", command], check=True)


def misspell(config: Config) -> None:
    config["idle_timeout_minuets"] = config.pop("idle_timeout_minutes")


def misspell_in_a_node_type(config: Config) -> None:
    config["available_node_types"]["gpu"]["max_worker"] = 8


def rename_the_head(config: Config) -> None:
    config["head_node_type"] = "haed"


def want_more_than_the_maximum(config: Config) -> None:
    config["available_node_types"]["gpu"]["min_workers"] = config["max_workers"] + 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (misspell, ValidationError, "idle_timeout_minuets"),
        (misspell_in_a_node_type, ValidationError, "max_worker"),
        (rename_the_head, ValueError, "head_node_type"),
        (want_more_than_the_maximum, ValueError, "max_workers"),
    ],
)
def test_the_validator_catches_a_mistake(
    written: Config, change: Callable[[Config], None], error: type[Exception], message: str
) -> None:
    change(written)
    with pytest.raises(error, match=message):
        validated(written)
