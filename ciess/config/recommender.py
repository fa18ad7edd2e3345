"""Settings of models and training. Every field names its source; the command line is these models."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ciess.config.models import MODEL_CONFIGS, BackboneName, LightGCNConfig, NCFConfig, NGCFConfig
from ciess.config.types import Frozen


class TrainingConfig(Frozen):
    """How a recommender is trained with the BPR loss of Eq. 4."""

    learning_rate: PositiveFloat = 0.03
    """Learning rate of Adam in the first epoch (not given in the paper; tuned on validation)."""
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the learning rate after every epoch (not given in the paper; 1 keeps it constant)."""
    learning_rate_floor: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate that the decay does not go below (published code: 1e-3)."""
    batch_size: PositiveInt = 10_000
    """Training pairs a step (not given in the paper; published code: 10,000)."""
    decay: Annotated[float, Field(ge=0)] = 1e-4
    """gamma of Eq. 4, on half the squared norm of the looked-up rows, divided by the batch size."""
    sampling: Literal["user", "interaction"] = "user"
    """`user`: a uniform user, then one of its items (all three original codes); `interaction`: Eq. 4 read literally."""
    max_epochs: PositiveInt = 1000
    """Longest full training (original LightGCN code: 1000). An epoch is ceil(training pairs / batch_size) steps."""
    evaluate_every: PositiveInt = 5
    """Epochs between two evaluations on validation (not given in the paper)."""
    patience: PositiveInt = 10
    """Evaluations without a better validation mean of Eq. 8 before a full training stops (not given in the paper)."""


# Chosen on the validation part of MovieLens-1M (NGCF and NCF: MovieLens-100K first) with equal sizes; every setting
# that was trained to its end is in docs/measurements/tuning.csv.
TUNED: dict[str, dict[str, Any]] = {
    "lightgcn": {"learning_rate": 0.1, "learning_rate_decay": 0.96, "decay": 1e-3},
    "ngcf": {"learning_rate": 0.01, "decay": 3e-2},
    "ncf": {"learning_rate": 5e-4, "decay": 0.0},
}


def default_threads() -> int:
    """CPU threads of a fit: the cores of the machine, 8 at most. It is written into every run's config."""
    return min(os.cpu_count() or 1, 8)


class RecommenderConfig(Frozen):
    """A backbone, the table it stands on, and how it is trained."""

    backbone: BackboneName = "lightgcn"
    """Base recommender F (section 3.1)."""
    max_size: Annotated[int, Field(ge=1, le=256)] = 128
    """d_max: columns of the full table (section 3.2: 128)."""
    model: LightGCNConfig | NGCFConfig | NCFConfig = LightGCNConfig()
    """Settings of the backbone."""
    training: TrainingConfig = TrainingConfig()
    """Settings of training; what is not set comes from the tuned defaults of the backbone."""
    device: str = "auto"
    """`auto` (cuda where there is one), `cpu`, `cuda`, `cuda:1`, ..."""
    threads: PositiveInt = Field(default_factory=default_threads)
    """CPU threads of a fit. Equal bits need equal thread counts."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_backbone(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        backbone = values.get("backbone", "lightgcn")
        if backbone not in MODEL_CONFIGS:
            return values
        model = values.get("model", {})
        training = values.get("training", {})
        filled: dict[str, Any] = {}
        if isinstance(model, dict):
            filled["model"] = MODEL_CONFIGS[backbone](**model)
        if isinstance(training, dict):
            filled["training"] = TrainingConfig(**(TUNED[backbone] | training))
        return values | filled

    def recommender(self) -> "RecommenderConfig":
        """These settings without those that a subclass adds: what a training and a saved table depend on.

        Returns:
            plain settings of a recommender.
        """
        return RecommenderConfig(**{name: getattr(self, name) for name in RecommenderConfig.model_fields})

    @model_validator(mode="after")
    def _model_fits_backbone(self) -> Self:
        expected = MODEL_CONFIGS[self.backbone]
        if not isinstance(self.model, expected):
            raise ValueError(
                f"model is a {type(self.model).__name__}, but backbone {self.backbone} takes a {expected.__name__}"
            )
        return self
