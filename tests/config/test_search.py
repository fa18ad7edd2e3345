from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ciess.config.agent import AgentConfig
from ciess.config.kinds import KindsConfig
from ciess.config.recommender import TUNED, RecommenderConfig
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.config.short_fit import SHORT_FITS, ShortFitConfig

MODELS = [SearchConfig, AgentConfig, ShortFitConfig, RetrainConfig]


BACKBONES = ["lightgcn", "ngcf", "ncf"]


PAPER = {
    "episodes": 30,
    "iterations": 10,
    "memory_weight": 0.4,
    "max_size": 128,
    "sparsities": (0.8, 0.9, 0.95),
    "noise": "gaussian",
    "gaussian_sd": 6.0,
    "noise_place": "before",
    "shared_noise": False,
    "random_walk": True,
    "walk_length": 5,
    "walk_reach": 5,
    "walk_weights": "distance",
    "reward_quality": "ratio",
    "zero_reference": "one",
    "budget_mode": "penalty",
    "candidate_quality": "all",
    "candidate_buckets": False,
    "lanes": 1,
}
"""Sections 2.2, 2.3, 3.2, 3.3 and 3.6.1."""


PUBLISHED = {
    "ou_theta": 0.15,
    "ou_dt": 0.01,
    "ou_sd": 40.0,
    "uniform_reach": 11.0,
    "candidates": 3,
    "agent.batch_size": 4096,
    "agent.replay_iterations": 100,
    "agent.gamma": 0.99,
    "agent.actor_learning_rate": 1e-3,
    "agent.critic_learning_rate": 3e-3,
    "agent.target_noise": 2.0,
    "agent.target_noise_clip": 5.0,
    "agent.gradient_steps": 1,
    "agent.walk_critic": "first",
}
"""Where the paper is silent: the published code."""


TD3 = {"agent.hidden": 256, "agent.tau": 0.005, "agent.policy_delay": 2, "agent.target_critic_every_update": False}
"""Fujimoto et al., ICML 2018."""


DECIDED = {
    "seed": 0,
    "targets": (),
    "sparsity": (),
    "strategy": "td3",
    "fits": None,
    "exploration": "row",
    "agent.scale": "linear",
    "agent.begin": "drawn",
    "agent.warm_up": 0,
    "agent.state": "paper",
    "agent.kinds_share": 0.7,
    "agent.episodes_from": "full",
    "agent.held_to_best": 0.0,
    "halves": False,
    "kinds": KindsConfig(),
    "memory_weight_rate": 0.1,
    "include_equal": True,
    "agent.gradient_clip": None,
    "short_fit.preset": "default",
    "short_fit.start": "spectral",
    "short_fit.epochs": 0,
    "preset": "default",
    "start": "best",
    "loss": "best",
    "gentle.max_epochs": None,
    "short_fit.shared_seed": True,
}
"""Neither says; ours. The start of short fits is the one that ranked masks best, see README."""


def value(config: BaseModel, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def small(**changes: Any) -> SearchConfig:
    return SearchConfig(**{"episodes": 6, "iterations": 2} | changes)


@pytest.mark.parametrize(("name", "expected"), (PAPER | PUBLISHED | TD3 | DECIDED).items())
def test_a_default_is_that_of_its_source(name: str, expected: object) -> None:
    assert value(SearchConfig(), name) == expected


def test_every_default_has_a_source() -> None:
    """A new setting belongs to one of the lists above."""
    listed = {name.split(".")[0] for name in PAPER | PUBLISHED | TD3 | DECIDED}
    assert set(SearchConfig.model_fields) - set(RecommenderConfig.model_fields) == listed - {"max_size"}
    agent = {name.removeprefix("agent.") for name in PUBLISHED | TD3 | DECIDED if name.startswith("agent.")}
    assert agent == set(AgentConfig.model_fields)


@pytest.mark.parametrize("model", MODELS)
def test_an_unknown_setting_is_refused_by_name(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="epsodes"):
        model(epsodes=3)


@pytest.mark.parametrize("part", ["agent", "short_fit", "training", "model"])
def test_an_unknown_setting_of_a_part_is_refused_by_name(part: str) -> None:
    with pytest.raises(ValidationError, match="epsodes"):
        SearchConfig(**{part: {"epsodes": 3}})


@pytest.mark.parametrize("model", MODELS)
def test_a_setting_cannot_change(model: type[BaseModel]) -> None:
    config = model()
    name = next(iter(model.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, name, getattr(config, name))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"episodes": 0}, "episodes"),
        ({"iterations": 0}, "iterations"),
        ({"lanes": 0}, "lanes"),
        ({"seed": -1}, "seed"),
        ({"memory_weight": -0.1}, "memory_weight"),
        ({"memory_weight": float("nan")}, "memory_weight"),
        ({"memory_weight_rate": -0.1}, "memory_weight_rate"),
        ({"targets": (1.0,), "budget_mode": "target"}, "targets"),
        ({"sparsities": (0.9, 0.0)}, "sparsities"),
        ({"noise": "pink"}, "noise"),
        ({"walk_length": 0}, "walk_length"),
        ({"walk_reach": 0}, "walk_reach"),
        ({"candidates": 0}, "candidates"),
        ({"agent": {"gamma": 1.01}}, "gamma"),
        ({"agent": {"tau": 0.0}}, "tau"),
        ({"agent": {"gradient_steps": 0}}, "gradient_steps"),
        ({"agent": {"replay_iterations": 0}}, "replay_iterations"),
        ({"short_fit": {"epochs": -1}}, "epochs"),
        ({"short_fit": {"preset": "quick"}}, "preset"),
        ({"short_fit": {"learning_rate_decay": 1.5}}, "learning_rate_decay"),
        ({"backbone": "mf"}, "backbone"),
    ],
)
def test_values_out_of_range_are_refused_by_name(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        SearchConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"episodes": 30, "lanes": 4},
            "30 episodes cannot be shared by 4 lanes; expected a multiple of the lanes, such as 32 episodes",
        ),
        (
            {"episodes": 1, "lanes": 3},
            "1 episodes cannot be shared by 3 lanes; expected a multiple of the lanes, such as 3 episodes",
        ),
        (
            {"budget_mode": "target"},
            "budget mode target needs at least one target sparsity; give --targets, such as 0.9",
        ),
        (
            {"targets": (0.8, 0.9)},
            "targets 0.8, 0.9 were given, but budget mode penalty projects to none; choose --budget-mode target, or "
            "leave the targets out",
        ),
    ],
)
def test_settings_that_do_not_agree_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SearchConfig(**settings)
    assert [error["msg"] for error in caught.value.errors()] == [f"Value error, {text}"]


class TestBudgets:
    def test_in_penalty_mode_they_are_the_sparsities(self) -> None:
        assert small(sparsities=(0.9, 0.8, 0.9)).budgets == (0.9, 0.8)
        assert [small().target(episode) for episode in (1, 2)] == [None, None]

    def test_in_target_mode_they_are_the_targets_which_episodes_serve_in_turn(self) -> None:
        config = small(budget_mode="target", targets=(0.9, 0.7, 0.8), sparsities=(0.5,))
        assert config.budgets == (0.9, 0.7, 0.8)
        assert [config.target(episode) for episode in range(1, 8)] == [0.9, 0.7, 0.8, 0.9, 0.7, 0.8, 0.9]


CONFIGS: list[dict[str, Any]] = [
    {},
    *({"backbone": backbone, "short_fit": {"preset": "official"}} for backbone in BACKBONES),
    {"short_fit": {"preset": "official", "epochs": 3}},
    {"short_fit": {"epochs": 3, "learning_rate": 0.123456789012345678}},
    {"budget_mode": "target", "targets": (0.9, 0.8), "episodes": 8, "lanes": 2, "agent": {"gamma": 0}},
    {"noise": "ou", "ou_sd": 1e-17, "training": {"decay": 0.1}, "agent": {"gradient_clip": 0.01}},
]


class TestWritten:
    @pytest.mark.parametrize("settings", CONFIGS)
    def test_a_written_config_is_read_again(self, settings: dict[str, Any]) -> None:
        config = SearchConfig(**settings)
        assert SearchConfig.model_validate(config.model_dump()) == config
        assert SearchConfig.model_validate(config.model_dump(mode="json")) == config
        assert SearchConfig.model_validate_json(config.model_dump_json()) == config

    @pytest.mark.parametrize("settings", CONFIGS)
    def test_a_config_is_made_of_the_parts_of_another(self, settings: dict[str, Any]) -> None:
        config = SearchConfig(**settings)
        assert SearchConfig(**{name: getattr(config, name) for name in SearchConfig.model_fields}) == config
        given_settings = {name: getattr(config, name) for name in config.model_fields_set}
        assert SearchConfig(**given_settings) == config

    def test_a_read_config_keeps_what_was_written_when_defaults_change(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = SearchConfig()
        dumped = config.model_dump(mode="json")
        monkeypatch.setitem(SHORT_FITS["lightgcn"], "default", {"batches": 999, "decay": 0.5})
        monkeypatch.setitem(TUNED, "lightgcn", {"learning_rate": 0.5})
        assert SearchConfig() != config
        assert SearchConfig.model_validate(dumped) == config

    def test_validation_leaves_what_was_given_alone(self) -> None:
        settings: dict[str, Any] = {"short_fit": {"preset": "official", "epochs": 3}}
        SearchConfig(**settings)
        SearchConfig.model_validate(settings)
        assert settings == {"short_fit": {"preset": "official", "epochs": 3}}
        assert SHORT_FITS["lightgcn"]["official"]["batches"] == 2000

    def test_the_recommender_is_what_tables_depend_on(self) -> None:
        config = SearchConfig(backbone="ncf", max_size=32, seed=3)
        assert config.recommender() == RecommenderConfig(backbone="ncf", max_size=32)
