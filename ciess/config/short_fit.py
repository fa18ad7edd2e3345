"""Settings of the short fit of each iteration, and its presets."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ciess.config.types import Frozen

PAPER_EPOCHS = 5
"""Epochs of a short fit (section 2.3)."""


Preset = Literal["default", "fast", "paper", "official"]

ShortStart = Literal["fresh", "reference", "principal", "projected", "spectral"]


class ShortFitConfig(Frozen):
    """The short fit of each iteration (line 10 of Algorithm 1). What is not set comes from the preset."""

    preset: Preset = "default"
    """`default`: ranked masks as well as any for at most twice the paper's cost; `fast`: the best of the cheap ones;
    `paper`: 5 epochs as in section 2.3; `official`: number of batches and learning rates of the published code."""
    epochs: NonNegativeInt | None = None
    """Epochs over the training data (section 2.3: 5); 0 ranks the start as it is."""
    batches: PositiveInt | None = None
    """Training steps instead of `epochs`, rounded up to whole epochs (published code: 2000, 3000 or 1500)."""
    learning_rate: PositiveFloat | None = None
    """Learning rate of the first epoch; None takes that of full training (section 2.3: all hyperparameters fixed)."""
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor on the learning rate after every epoch, or after every `decay_batches`; None as in full training."""
    decay_batches: PositiveInt | None = None
    """Training steps that `learning_rate_decay` stands for, spread evenly over epochs (published code: 50 to 200)."""
    learning_rate_floor: NonNegativeFloat | None = None
    """Learning rate that the decay does not go below; None as in full training (published code: 1e-3)."""
    batch_size: PositiveInt | None = None
    """Training pairs a step; None as in full training."""
    decay: NonNegativeFloat | None = None
    """gamma of Eq. 4; None as in full training."""
    start: ShortStart = "fresh"
    """Initial weights: drawn anew (line 7 of Algorithm 1); the reference's own, cut to size; those turned to the
    principal axes of its table first, which changes no score of LightGCN and keeps the most in the first columns;
    `projected`: the least squares to what it encodes; `spectral`: the least squares to the leading axes of the pairs.
    The last two are trained as `gentle` says."""
    side: Literal["items", "users", "both"] = "both"
    """Of a spectral start: whose axes (ciess/search/closed_form_fits.csv)."""
    exponent: float = 0.1
    """x of a spectral start; b of items."""
    power: float = 0.5
    """p of a spectral start."""
    item_exponent: float = 0.3
    """a of items."""
    shared_seed: bool = True
    """Every short fit of a run starts from the same initial table and sees the same samples, so that only the mask
    differs (section 2.3); False draws them for each fit, as the published code does."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.batches is not None:
            raise ValueError(
                f"both epochs {self.epochs} and batches {self.batches} were given for the short fit; one of them was "
                "expected; set the other to None"
            )
        return self

    @model_validator(mode="after")
    def _decay_batches_have_a_decay(self) -> Self:
        if self.decay_batches is not None and self.learning_rate_decay in (None, 1.0):
            raise ValueError(
                f"decay_batches {self.decay_batches} was given without learning_rate_decay, the factor that they stand "
                "for; give both, or leave decay_batches out"
            )
        return self


def _official(batches: int, decay_batches: int, floor: float) -> dict[str, Any]:
    return {
        "batches": batches,
        "decay_batches": decay_batches,
        "learning_rate_floor": floor,
        "learning_rate": 0.03,
        "learning_rate_decay": 0.9,
        "batch_size": 10_000,
    }


SHORT_FITS: dict[str, dict[str, dict[str, Any]]] = {
    "lightgcn": {
        "default": {"epochs": 0, "start": "spectral"},
        "fast": {"epochs": 0, "start": "spectral"},
        "paper": {"epochs": 5},
        "official": _official(2000, 200, 1e-3),
    },
    "ngcf": {
        "default": {"epochs": 5},
        "fast": {"epochs": 3},
        "paper": {"epochs": 5},
        "official": _official(3000, 100, 1e-3),
    },
    "ncf": {
        "default": {"epochs": 5},
        "fast": {"epochs": 3},
        "paper": {"epochs": 5},
        "official": _official(1500, 50, 1e-4),
    },
    "items": {
        "default": {"epochs": 0, "start": "spectral", "side": "items", "exponent": 0.4, "power": 0.25},
        "fast": {"epochs": 0, "start": "spectral", "side": "items", "exponent": 0.4, "power": 0.25},
        "paper": {"epochs": 5},
        "official": _official(2000, 200, 1e-3),
    },
}
"""Short fits by backbone and preset."""
