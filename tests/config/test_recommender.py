import pytest
from pydantic import BaseModel, ValidationError

from ciess.config.models import MODEL_CONFIGS, LightGCNConfig, NCFConfig, NGCFConfig
from ciess.config.recommender import TUNED, RecommenderConfig, TrainingConfig
from ciess.models import BACKBONES

MODELS = [LightGCNConfig, NGCFConfig, NCFConfig, TrainingConfig, RecommenderConfig]


@pytest.mark.parametrize("model", MODELS)
def test_an_unknown_setting_is_refused_by_name(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="learning_rte"):
        model(learning_rte=0.1)


@pytest.mark.parametrize("model", MODELS)
def test_a_setting_cannot_change(model: type[BaseModel]) -> None:
    config = model()
    name = next(iter(model.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, name, getattr(config, name))


@pytest.mark.parametrize(("backbone", "expected"), MODEL_CONFIGS.items())
def test_model_settings_are_those_of_the_backbone(backbone, expected: type[BaseModel]) -> None:
    assert RecommenderConfig(backbone=backbone).model == expected()
    assert type(RecommenderConfig(backbone=backbone).model) is expected


def test_model_settings_that_are_given_are_kept() -> None:
    assert RecommenderConfig(backbone="ncf", model={"hidden": (8,)}).model == NCFConfig(hidden=(8,))
    assert RecommenderConfig(backbone="ngcf", model=NGCFConfig(layers=1)).model == NGCFConfig(layers=1)


def test_every_backbone_has_settings_and_tuned_defaults() -> None:
    assert set(BACKBONES) == set(MODEL_CONFIGS) == set(TUNED)


@pytest.mark.parametrize("backbone", MODEL_CONFIGS)
def test_training_settings_that_are_not_given_are_the_tuned_ones(backbone) -> None:
    training = RecommenderConfig(backbone=backbone, training={"batch_size": 17}).training
    assert training == TrainingConfig(**TUNED[backbone] | {"batch_size": 17})


def test_what_is_given_wins_over_the_tuned_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TUNED, "ngcf", {"learning_rate": 0.5, "decay": 0.25})
    training = RecommenderConfig(backbone="ngcf", training={"decay": 0.125}).training
    assert (training.learning_rate, training.decay) == (0.5, 0.125)
    assert RecommenderConfig(backbone="ncf").training.learning_rate != 0.5


def test_settings_of_another_backbone_are_refused() -> None:
    with pytest.raises(ValidationError, match="model is a LightGCNConfig, but backbone ncf takes a NCFConfig"):
        RecommenderConfig(backbone="ncf", model=LightGCNConfig())
    with pytest.raises(ValidationError, match="hidden"):
        RecommenderConfig(backbone="lightgcn", model={"hidden": (8,)})


@pytest.mark.parametrize("backbone", MODEL_CONFIGS)
def test_a_written_config_is_read_again(backbone) -> None:
    config = RecommenderConfig(backbone=backbone, max_size=33, training={"decay": 0.5}, threads=3)
    assert RecommenderConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"backbone": "mf"}, "backbone"),
        ({"max_size": 0}, "max_size"),
        ({"max_size": 257}, "max_size"),
        ({"threads": 0}, "threads"),
        ({"training": {"learning_rate": 0}}, "learning_rate"),
        ({"training": {"learning_rate": float("nan")}}, "learning_rate"),
        ({"training": {"learning_rate_decay": 1.5}}, "learning_rate_decay"),
        ({"training": {"decay": -1}}, "decay"),
        ({"training": {"batch_size": 0}}, "batch_size"),
        ({"training": {"sampling": "item"}}, "sampling"),
        ({"backbone": "ngcf", "model": {"message_dropout": 1.0}}, "message_dropout"),
        ({"backbone": "ncf", "model": {"hidden": (8, 0)}}, "hidden"),
    ],
)
def test_values_out_of_range_are_refused_by_name(settings: dict[str, object], name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        RecommenderConfig(**settings)


def test_an_empty_tower_is_refused() -> None:
    with pytest.raises(ValidationError, match="hidden"):
        NCFConfig(hidden=())


def test_the_papers_table_is_128_columns_wide() -> None:
    assert RecommenderConfig().max_size == 128
