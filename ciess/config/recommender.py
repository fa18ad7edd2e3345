"""Settings of models and training. Every field names its source; the command line is these models."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ciess.config.models import (
    DEFAULT_SIZES,
    LEAST_SIZES,
    LEAVE_ONE_OUT,
    MODEL_CONFIGS,
    BackboneName,
    ItemsConfig,
    LightGCNConfig,
    NCFConfig,
    NGCFConfig,
)
from ciess.config.types import Frozen

LossName = Literal["bpr", "softmax", "squared"]


class TrainingConfig(Frozen):
    """How a recommender is trained."""

    loss: LossName = "bpr"
    """`bpr` (Eq. 4); `softmax`: the item of a pair among all items, or among `negatives` uniform ones that a step
    shares (Rendle, 2021, section 4); `squared`: (1 - y)^2 over pairs and y^2 over all user-item pairs, by Gram matrices
    (iALS; Rendle et al., RecSys 2022), a user's terms divided by its number of pairs."""
    leave_one_out: bool = False
    """Take what a pair's own standing in its user's history adds out of its score (FISM, Kabbur et al., KDD 2013):
    exact for items; for lightgcn what the pair's own edge brings of the item. Other backbones refuse it."""
    negatives: PositiveInt = 2048
    """Items that a step of softmax shares; all of them where there are no more than twice as many."""
    unobserved_weight: Annotated[float, Field(ge=0)] = 1.0
    """a0: weight of the term of `squared` over all pairs (iALS)."""
    relative_rate: bool = False
    """The learning rate is a multiple of the deviation of the kept entries that training starts from."""
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
    "items": {"learning_rate": 0.01, "decay": 1e-3, "leave_one_out": True},
}


def leave_one_out_unknown(name: str, backbone: str) -> str:
    """What to say of a setting that asks a backbone to leave out what it does not know."""
    return (
        f"{name} is set, but {backbone} does not know what a pair's own standing in its user's history adds to a "
        f"score; {' and '.join(LEAVE_ONE_OUT)} do; leave it out, or choose one of these"
    )


def default_threads() -> int:
    """CPU threads of a fit: the cores of the machine, 8 at most. It is written into every run's config."""
    return min(os.cpu_count() or 1, 8)


class RecommenderConfig(Frozen):
    """A backbone, the table it stands on, and how it is trained."""

    backbone: BackboneName = "lightgcn"
    """Base recommender F (section 3.1)."""
    max_size: Annotated[int, Field(ge=1, le=256)] = 128
    """d_max: columns of the full table (section 3.2: 128)."""
    min_size: Annotated[int, Field(ge=0, le=256)] = 0
    """Smallest size of a row: 0 where propagation or history gives a row without dimensions a vector, 1 for ncf and, so
    that no item is lost, for items (section 2.2.2: 1)."""
    model: LightGCNConfig | NGCFConfig | NCFConfig | ItemsConfig = LightGCNConfig()
    """Settings of the backbone."""
    training: TrainingConfig = TrainingConfig()
    """Settings of training; what is not set comes from the tuned defaults of the backbone."""
    evaluate_users: Annotated[int, Field(ge=0)] | None = None
    """Users that validation and test rank, drawn by a seed of their own; 0 ranks all of them; None ranks all up to
    100,000 users and 10,000 of more (section 3.2 ranks all)."""
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
        return {"min_size": min(DEFAULT_SIZES[backbone], values.get("max_size", 1))} | values | filled

    def recommender(self) -> "RecommenderConfig":
        """These settings without those that a subclass adds: what a training and a saved table depend on.

        Returns:
            plain settings of a recommender.
        """
        return RecommenderConfig(**{name: getattr(self, name) for name in RecommenderConfig.model_fields})

    def identity(self) -> str:
        """All that the result of a fit under a given mask depends on.

        Settings that came with later versions are in it where they change something.

        Returns:
            JSON.
        """
        later: dict[str, Any] = {"threads": True, "device": True, "min_size": True}
        if self.evaluate_users == 0:
            later["evaluate_users"] = True
        added = ("loss", "leave_one_out", "negatives", "unobserved_weight", "relative_rate")
        if all(getattr(self.training, name) == TrainingConfig.model_fields[name].default for name in added):
            later["training"] = set(added)
        return self.recommender().model_dump_json(exclude=later)

    @model_validator(mode="after")
    def _model_fits_backbone(self) -> Self:
        expected = MODEL_CONFIGS[self.backbone]
        if not isinstance(self.model, expected):
            raise ValueError(
                f"model is a {type(self.model).__name__}, but backbone {self.backbone} takes a {expected.__name__}"
            )
        return self

    @model_validator(mode="after")
    def _leave_one_out_is_known(self) -> Self:
        if self.training.leave_one_out and self.backbone not in LEAVE_ONE_OUT:
            raise ValueError(leave_one_out_unknown("training.leave_one_out", self.backbone))
        return self

    @model_validator(mode="after")
    def _sizes_suit_the_backbone(self) -> Self:
        if self.min_size < LEAST_SIZES[self.backbone]:
            raise ValueError(
                f"min_size is {self.min_size}, but a row of {self.backbone} without dimensions has no vector: nothing "
                "propagates to it; choose min_size 1 or more"
            )
        if self.min_size > self.max_size:
            raise ValueError(f"min_size is {self.min_size}, more than max_size {self.max_size}; choose a smaller one")
        return self
