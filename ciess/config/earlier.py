"""Settings that runs of ciess 0.1.0 do not name, as they were then."""

from collections.abc import Mapping
from typing import Any

from ciess.config.kinds import KindsConfig
from ciess.config.recommender import TrainingConfig
from ciess.config.starts import GentleConfig, StartedConfig

SEARCH: dict[str, Any] = {
    "preset": "default",
    "sparsity": [],
    "strategy": "td3",
    "fits": None,
    "halves": False,
    "kinds": KindsConfig().model_dump(mode="json"),
    "exploration": "row",
}
"""Settings of a search that were not there, as it searched."""

AGENT = {"scale": "linear", "begin": "drawn", "warm_up": 0}
"""Settings of its agents."""

TRAINING = ("loss", "leave_one_out", "negatives", "unobserved_weight", "relative_rate")
"""Fields of TrainingConfig that it did not have; their defaults are what it did."""

BEFORE: dict[str, Any] = {
    "min_size": 1,
    "evaluate_users": 0,
    "start": "fresh",
    "loss": "best",
    "gentle": GentleConfig().model_dump(mode="json"),
}
"""Settings of a fit or a search."""


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run, with those that its version did not have yet.

    Args:
        settings: as config.yaml holds them.

    Returns:
        settings of a fit or a search by all names of today; those of a sweep, which has none of these, as they are.
    """
    if "training" not in settings:
        return dict(settings)
    plain = TrainingConfig().model_dump(mode="json", include=set(TRAINING))
    search = SEARCH if "short_fit" in settings else {}
    found = {**BEFORE, **search, **settings, "training": {**plain, **settings["training"]}}
    return found | ({"agent": {**AGENT, **settings["agent"]}} if "agent" in settings else {})


def unnamed(config: StartedConfig) -> dict[str, Any]:
    """What to leave out of a fingerprint, so that it is the same in every version: settings that are as they were.

    Args:
        config: of a fit or a search.

    Returns:
        for `model_dump_json(exclude=...)`.
    """
    found = config.model_dump(mode="json")
    left: dict[str, Any] = {name: True for name, value in BEFORE.items() if found[name] == value}
    if "short_fit" in found:
        left |= {name: True for name, value in SEARCH.items() if found[name] == value}
        left |= {"agent": set(AGENT)} if all(found["agent"][name] == value for name, value in AGENT.items()) else {}
    left["preset"] = True  # what it sets stands in the other settings
    if all(found["training"][name] == TrainingConfig.model_fields[name].default for name in TRAINING):
        left["training"] = set(TRAINING)
    return left
