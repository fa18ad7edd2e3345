"""Settings of where a training starts and of what is then minimised."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ciess.config.models import LEAVE_ONE_OUT, WITHOUT_USERS
from ciess.config.recommender import LossName, RecommenderConfig, TrainingConfig, leave_one_out_unknown
from ciess.config.types import Frozen

StartName = Literal["best", "fresh", "cut", "projected", "spectral"]

ALLOWED: dict[str, tuple[StartName, ...]] = {
    "lightgcn": ("fresh", "cut", "projected", "spectral"),
    "ngcf": ("fresh", "cut", "spectral"),
    "ncf": ("fresh", "cut", "projected", "spectral"),
    "items": ("fresh", "cut", "projected", "spectral"),
}
"""Backbone -> starts. NGCF's elementwise term forbids turning a reference's axes, so its `cut` takes the columns of
most energy as they are."""


def start_refused(backbone: str, name: str) -> str:
    """What to say of a start that a backbone does not allow."""
    return (
        f"start {name} is not for backbone {backbone}, whose scores change when a table's axes are turned. Expected "
        f"one of {', '.join(ALLOWED[backbone])}. Choose one of these."
    )


GENTLE: dict[LossName, dict[str, Any]] = {
    "squared": {"learning_rate": 0.1, "batch_size": 1 << 30, "decay": 0.0, "max_epochs": 60, "evaluate_every": 5},
    "softmax": {"learning_rate": 0.01, "batch_size": 4096, "decay": 1e-4, "max_epochs": 24, "evaluate_every": 1},
    "bpr": {"learning_rate": 0.03, "batch_size": 4096, "decay": 1e-4, "max_epochs": 8, "evaluate_every": 1},
}
"""Loss -> how training goes on from a start that is good already (docs/measurements/losses.csv)."""

PATIENCE = 2
"""Evaluations without a better one before such a training stops."""

PAIR_VISITS, WHOLE_PAIRS, VISITS_IN_BLOCKS = 32_000_000, 4_000_000, 20_000_000
"""Training pairs that such a training visits at most, all epochs together; those up to which data stay whole; and
visits of larger data, whose blocks bring many steps an epoch (docs/measurements/scale.csv)."""

TRIED: dict[str, tuple[LossName, ...]] = {"ngcf": ("squared", "bpr"), "ncf": ("bpr",)}
"""Backbone -> losses that `best` tries; for the others `squared`, and where pairs are few `softmax`, too."""

SOFTMAX_PAIRS = 250_000
"""Training pairs up to which `best` tries `softmax`: there it may win by far or lose by far, in a minute or two
(docs/measurements/starts.csv)."""

TRAINED_ITEM_EXPONENT = 0.3
"""a of the backbone `items` that training makes most of. What is best untrained is lower where rows are short, and then
trains worse: MovieLens-1M, validation after training, at 98 % .2116 with a = -.2 and .2158 with .2, at 99 % .1985 with
-.2 and .2029 with .3. On sparse data the untrained one may stay ahead, so both are tried."""

TRIED_SHARE = 0.25
"""Share of their epochs after which, of trainings that differ in numbers of their start, one goes on."""

TOWER_BATCH, TOWER_NEGATIVES = 512, 256
"""Pairs and shared items of a step where a tower scores each pair of them: 64 MiB a layer of 128."""


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
    negatives: PositiveInt | None = None
    """As `training.negatives`."""
    unobserved_weight: Annotated[float, Field(ge=0)] = 1.0
    """As `training.unobserved_weight`."""


class StartedConfig(RecommenderConfig):
    """A recommender, and how the training of a table begins."""

    start: StartName = "best"
    """`fresh`: a drawn table, trained as `training` says (the paper); `spectral`: leading axes of the normalised pairs;
    `cut`, `projected`: from a reference, which is trained first; `best`: spectral with the sides and numbers that
    validation chooses, and where training pairs are few projected as well (docs/measurements/starts.csv)."""
    loss: LossName | Literal["best"] = "best"
    """What is minimised from a start that is not fresh; `best`: those that measured best for the backbone, chosen by
    validation. A fresh start has `training.loss`."""
    gentle: GentleConfig = GentleConfig()
    """How training goes on from a start that is not fresh."""

    @model_validator(mode="after")
    def _start_suits_the_backbone(self) -> Self:
        if self.start not in ("best", *ALLOWED[self.backbone]):
            raise ValueError(start_refused(self.backbone, self.start).removesuffix("."))
        return self

    @model_validator(mode="after")
    def _leaves_out_what_it_knows(self) -> Self:
        if self.gentle.leave_one_out and self.backbone not in LEAVE_ONE_OUT:
            raise ValueError(leave_one_out_unknown("gentle.leave_one_out", self.backbone))
        return self

    @property
    def losses(self) -> tuple[LossName, ...]:
        """Losses that are tried from a start that is not fresh, whatever the data."""
        if self.loss != "best":
            return (self.loss,)
        return TRIED.get(self.backbone, ("squared",))

    def tried(self, pairs: int) -> tuple[tuple[LossName, bool], ...]:
        """Losses that are tried on data of so many training pairs, and whether each leaves out (`left_out`)."""
        found = [(loss, left_out) for loss in self.losses for left_out in self.left_out]
        if self.tries_softmax(pairs):
            found.append(("softmax", self.left_out[0]))
        return tuple(found)

    def tries_softmax(self, pairs: int) -> bool:
        """Whether `best` tries softmax on data of so many training pairs, and from a reference, too."""
        return self.loss == "best" and self.backbone not in TRIED and pairs <= SOFTMAX_PAIRS

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
        # Every score of a pair and a shared item goes through a tower.
        towers = {"batch_size": TOWER_BATCH, "negatives": TOWER_NEGATIVES}
        found: dict[str, Any] = GENTLE[loss] | (towers if self.backbone == "ncf" and loss != "bpr" else {}) | own
        if self.gentle.max_epochs is None:
            visits = PAIR_VISITS if pairs <= WHOLE_PAIRS else VISITS_IN_BLOCKS
            found["max_epochs"] = max(1, min(found["max_epochs"], visits // max(1, pairs)))
        found["evaluate_every"] = min(found["evaluate_every"], found["max_epochs"])
        found["leave_one_out"] = leave_one_out
        return TrainingConfig(loss=loss, relative_rate=True, sampling="interaction", patience=PATIENCE, **found)

    def of_reference(self) -> "StartedConfig":
        """These settings for a reference, which begins from no other."""
        return self.model_copy(update={"start": "best"}) if self.start in ("cut", "projected") else self

    def started(self) -> "StartedConfig":
        """These settings without those that a subclass adds: what the trainings of a table depend on."""
        return StartedConfig(**{name: getattr(self, name) for name in StartedConfig.model_fields})
