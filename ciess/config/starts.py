"""Settings of where a training starts and of what is then minimised."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ciess.config.models import LEAVE_ONE_OUT, WITHOUT_USERS
from ciess.config.recommender import LossName, RecommenderConfig, TrainingConfig
from ciess.config.types import Frozen

StartName = Literal["best", "fresh", "cut", "projected", "spectral"]

GENTLE: dict[LossName, dict[str, Any]] = {
    "squared": {"learning_rate": 0.1, "batch_size": 1 << 30, "decay": 0.0, "max_epochs": 60, "evaluate_every": 5},
    "softmax": {"learning_rate": 0.03, "batch_size": 4096, "decay": 1e-4, "max_epochs": 8, "evaluate_every": 1},
    "bpr": {"learning_rate": 0.03, "batch_size": 4096, "decay": 1e-4, "max_epochs": 8, "evaluate_every": 1},
}
"""Loss -> how training goes on from a start that is good already (docs/measurements/losses.csv)."""

PATIENCE = 2
"""Evaluations without a better one before such a training stops."""

PAIR_VISITS = 100_000_000
"""Training pairs that such a training visits at most, all epochs together: 5 epochs of 20 million pairs."""


TRIED: dict[str, tuple[LossName, ...]] = {"ngcf": ("squared", "bpr"), "ncf": ("bpr",)}
"""Backbone -> losses that `best` tries; `squared` alone for the others."""

TOWER_BATCH, TOWER_NEGATIVES = 512, 256
"""Most pairs and shared items of a step where a tower scores each pair of them: 64 MiB a layer of 128."""


class GentleConfig(Frozen):
    """Training from a start that is not fresh; what is not set comes from measured defaults of the loss."""

    learning_rate: PositiveFloat | None = None
    """Learning rate of Adam, as a multiple of the deviation of the entries that training starts from."""
    batch_size: PositiveInt | None = None
    """Training pairs a step; `squared` takes all of them at once by default."""
    decay: NonNegativeFloat | None = None
    """gamma of Eq. 4."""
    max_epochs: PositiveInt | None = None
    """Most epochs, each of all training pairs."""
    evaluate_every: PositiveInt | None = None
    """Epochs between two evaluations on validation."""
    leave_one_out: bool | None = None
    """As `training.leave_one_out`; None tries both for lightgcn, and leaves out for items, where it is exact."""
    negatives: PositiveInt = 2048
    """As `training.negatives`."""
    unobserved_weight: Annotated[float, Field(ge=0)] = 1.0
    """As `training.unobserved_weight`."""


class StartedConfig(RecommenderConfig):
    """A recommender, and how the training of a table begins."""

    start: StartName = "best"
    """`fresh`: a drawn table, trained as `training` says (the paper); `spectral`: leading axes of the normalised pairs;
    `cut`, `projected`: from a reference, which is trained first; `best`: spectral, and projected where there is a
    reference already, chosen by validation."""
    loss: LossName | Literal["best"] = "best"
    """What is minimised from a start that is not fresh; `best`: those that measured best for the backbone, chosen by
    validation. A fresh start has `training.loss`."""
    gentle: GentleConfig = GentleConfig()
    """How training goes on from a start that is not fresh."""

    @property
    def losses(self) -> tuple[LossName, ...]:
        """Losses that are tried from a start that is not fresh."""
        if self.loss != "best":
            return (self.loss,)
        return TRIED.get(self.backbone, ("squared",))

    @property
    def left_out(self) -> tuple[bool, ...]:
        """Whether a pair's own standing in its user's history is taken out: the ways that are tried."""
        if self.backbone not in LEAVE_ONE_OUT:
            return (False,)
        if self.gentle.leave_one_out is not None:
            return (self.gentle.leave_one_out,)
        return (True,) if self.backbone in WITHOUT_USERS else (True, False)

    def gentle_training(self, loss: LossName, pairs: int, leave_one_out: bool) -> TrainingConfig:
        """Settings of training from a start that is not fresh.

        Args:
            loss: what is minimised.
            pairs: training pairs of the data.
            leave_one_out: as `TrainingConfig` has it.

        Returns:
            the settings.
        """
        own = {name: value for name, value in self.gentle.model_dump().items() if value is not None}
        found: dict[str, Any] = GENTLE[loss] | own
        if self.backbone == "ncf" and loss != "bpr":
            # Every score of a pair and a shared item goes through the tower.
            limits = {"batch_size": TOWER_BATCH, "negatives": TOWER_NEGATIVES}
            found |= {name: min(found.get(name, limit), limit) for name, limit in limits.items()}
        if self.gentle.max_epochs is None:
            found["max_epochs"] = max(1, min(found["max_epochs"], PAIR_VISITS // max(1, pairs)))
        found["evaluate_every"] = min(found["evaluate_every"], found["max_epochs"])
        found["leave_one_out"] = leave_one_out
        return TrainingConfig(loss=loss, relative_rate=True, sampling="interaction", patience=PATIENCE, **found)

    def started(self) -> "StartedConfig":
        """These settings without those that a subclass adds: what the trainings of a table depend on."""
        return StartedConfig(**{name: getattr(self, name) for name in StartedConfig.model_fields})
