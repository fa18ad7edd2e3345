"""Settings of the search. Every field names its source; the command line is these models."""

from typing import Any, Literal, Self

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ciess.config.agent import AgentConfig
from ciess.config.budgeted import sparsity_refused, with_settings_of_a_sparsity
from ciess.config.kinds import KindsConfig
from ciess.config.recommender import TrainingConfig
from ciess.config.short_fit import PAPER_EPOCHS, SHORT_FITS, ShortFitConfig
from ciess.config.starts import StartedConfig
from ciess.config.types import Seed, Sparsity


class SearchConfig(StartedConfig):
    """A search for the embedding size of every user and item (Algorithm 1)."""

    preset: Literal["default", "paper"] = "default"
    """`paper`: Algorithm 1 to the letter: sizes from 1, fresh starts, 5 epochs a short fit; what is said goes first."""
    sparsity: tuple[Sparsity, ...] = ()
    """Budgets: shares of the table that are removed. Given, they are searched for by `strategy`, every fit at one of
    them; without them the paper's search goes on, by memory weight or by `targets`."""
    strategy: Literal["kinds", "td3", "random"] = "td3"
    """`kinds` (default with a sparsity): CMA-ES over weights of popularity bins; `td3`: Algorithm 1 (default without);
    `random`: draws of the same numbers."""
    fits: PositiveInt | None = None
    """Short fits for each sparsity, 300 by default; without a sparsity the episodes say how many."""
    halves: bool = False
    """Cut validation in two by user: states and rewards from one half, masks chosen on the other (default with a
    sparsity). Not in the paper, whose masks are chosen by the pairs that they were searched by."""
    kinds: KindsConfig = KindsConfig()
    """Of strategies kinds and random."""
    seed: Seed = 0
    """Seed of the run: reference, short fits, agents and exploration. Not given in the paper."""
    episodes: PositiveInt = 30
    """M of Algorithm 1, over all lanes together (section 3.3: 30)."""
    iterations: PositiveInt = 10
    """T of Algorithm 1 (section 3.3: 10; published code: 11)."""
    lanes: PositiveInt = 1
    """Episodes that run side by side, in lock step, into one replay buffer. 1 is Algorithm 1."""

    budget_mode: Literal["penalty", "target"] = "penalty"
    """`penalty`: a fixed memory weight (the paper); `target`: sizes are projected to the target before each fit, and
    the memory weight is moved until the actors meet it by themselves."""
    memory_weight: NonNegativeFloat = 0.4
    """lambda of Eq. 10 (section 3.6.1: best 0.4 on MovieLens-1M, 0.2 on Yelp2018); in target mode its
    start, where 0 stays 0."""
    targets: tuple[Sparsity, ...] = ()
    """Sparsities to project to in target mode; lanes, or episodes in turn, serve them."""
    memory_weight_rate: NonNegativeFloat = 0.1
    """Step of log(memory weight) a round in target mode, times the clipped relative excess of the actors' density."""
    reward_quality: Literal["ratio", "raw"] = "ratio"
    """Quality in the reward: the ratio of Eq. 7 (Eq. 10), or the raw quality (published code; it needs a memory weight
    smaller by the mean quality)."""
    zero_reference: Literal["one", "floor"] = "one"
    """Eq. 7 where the reference scores 0: a ratio of 1, as nothing can be lost; or a denominator of at least 1e-5
    (published code)."""

    noise: Literal["gaussian", "ou", "uniform", "none"] = "gaussian"
    """epsilon of Eq. 11: gaussian (section 3.3), Ornstein-Uhlenbeck or uniform (Table 2), or none."""
    exploration: Literal["row", "kind"] = "row"
    """Noise, walk and the critic's choice for every row apart (section 2.2), or one for all rows of a side and
    popularity bin, by the critic's mean value over them (default at a sparsity)."""
    shared_noise: bool = False
    """One draw for all entities of an iteration (published code) instead of one for each."""
    noise_place: Literal["before", "after"] = "before"
    """Noise before the walk (Eq. 11) or after the critic's choice (published code, which un-does that choice)."""
    gaussian_sd: NonNegativeFloat = 6.0
    """sigma of the gaussian noise in dimensions (section 3.3: 6)."""
    ou_theta: NonNegativeFloat = 0.15
    """Pull of the Ornstein-Uhlenbeck noise to 0 (published code)."""
    ou_dt: PositiveFloat = 0.01
    """Time step of the Ornstein-Uhlenbeck noise (published code); it starts at 0 in every episode."""
    ou_sd: NonNegativeFloat = 40.0
    """Standard deviation a unit of time of the Ornstein-Uhlenbeck noise in dimensions (published code)."""
    uniform_reach: NonNegativeFloat = 11.0
    """Largest uniform noise in dimensions (published code)."""

    random_walk: bool = True
    """Walk from the noisy action and let the critic choose among the sizes met (Eq. 12-14)."""
    walk_length: PositiveInt = 5
    """Steps of the walk, |Z| (section 3.3: 5); the start stands for choice too, as in the published code."""
    walk_reach: PositiveInt = 5
    """t of Eq. 12: longest step in dimensions (section 3.3: 5)."""
    walk_weights: Literal["distance", "inverse"] = "distance"
    """Chance of a step: by its length (Eq. 13), or by the inverse (published code)."""

    candidates: PositiveInt = 3
    """l: masks a budget that are retrained (section 2.3; published code: 3)."""
    candidate_quality: Literal["all", "users", "choice"] = "all"
    """By what they are chosen: the mean quality ratio over users and items (Eq. 16), or over users alone (published
    code, whose choice of masks a reproduction must repeat); or `choice`, the mean quality on the half of validation
    that is kept for it (default where it is cut)."""
    candidate_buckets: bool = False
    """A mask serves only the largest of `sparsities` that it meets (published code, whose choice of masks a
    reproduction must repeat), not every budget (Eq. 15)."""
    include_equal: bool = True
    """Equal sizes at each budget are fitted before the search and stand among the candidates."""
    sparsities: tuple[Sparsity, ...] = (0.8, 0.9, 0.95)
    """Budgets c of Eq. 15 to search for in penalty mode (section 3.2); in target mode the targets are the budgets."""

    short_fit: ShortFitConfig = ShortFitConfig()
    """The fit of each iteration."""
    agent: AgentConfig = AgentConfig()
    """The two agents."""

    @property
    def budgets(self) -> tuple[float, ...]:
        """The sparsities that the search is for: the targets, or `sparsities` in penalty mode."""
        return tuple(dict.fromkeys(self.targets if self.budget_mode == "target" else self.sparsities))

    @property
    def kinds_generations(self) -> int:
        """Generations of strategy kinds at each budget before agents take over; 0 where they begin by themselves."""
        if self.agent.begin != "kinds" or self.fits is None:
            return 0
        return round(self.agent.kinds_share * self.fits / self.lanes)

    def target(self, episode: int) -> float | None:
        """Sparsity that an episode is projected to.

        Args:
            episode: counted from 1.

        Returns:
            the sparsity; None in penalty mode.
        """
        return self.targets[(episode - 1) % len(self.targets)] if self.targets else None

    @model_validator(mode="before")
    @classmethod
    def _short_fit_of_the_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        short_fit = values.get("short_fit", {})
        if isinstance(short_fit, ShortFitConfig):
            short_fit = short_fit.model_dump(exclude_unset=True)
        presets = SHORT_FITS.get(values.get("backbone", "lightgcn"))
        if not isinstance(short_fit, dict) or presets is None:
            return values
        preset = presets.get(short_fit.get("preset", "default"), {})
        if short_fit.get("epochs") is not None or short_fit.get("batches") is not None:
            # A length that was given takes the place of the preset's, in whichever unit that is.
            preset = {name: value for name, value in preset.items() if name not in ("epochs", "batches")}
        return values | {"short_fit": ShortFitConfig(**(preset | short_fit))}

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("preset") != "paper":
            return values
        short_fit = values.get("short_fit", {})
        if isinstance(short_fit, dict):
            short_fit = {"preset": "paper"} | short_fit
        return {"min_size": 1, "start": "fresh"} | values | {"short_fit": short_fit}

    @model_validator(mode="before")
    @classmethod
    def _settings_of_a_sparsity(cls, values: Any) -> Any:
        return with_settings_of_a_sparsity(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _sparsity_agrees(self) -> Self:
        if refused := sparsity_refused(self):
            raise ValueError(refused)
        return self

    @model_validator(mode="after")
    def _axes_may_be_turned(self) -> Self:
        side = self.short_fit.side
        turned = self.backbone in ("ngcf", "ncf") and not self.sparsity
        if self.short_fit.start in ("spectral", "projected") and (
            turned or (self.backbone == "items" and side != "items")
        ):
            raise ValueError(
                f"short fit start {self.short_fit.start} with side {side} is for lightgcn, and with side items for "
                f"items; found backbone {self.backbone}; choose start fresh or reference"
            )
        if self.short_fit.start == "principal" and self.backbone != "lightgcn":
            raise ValueError(
                "short fit start principal turns the table's axes, which only lightgcn's scores do not depend on; "
                f"found backbone {self.backbone}; choose start fresh or reference"
            )
        return self

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.episodes % self.lanes:
            raise ValueError(
                f"{self.episodes} episodes cannot be shared by {self.lanes} lanes; expected a multiple of the lanes, "
                f"such as {self.lanes * max(1, round(self.episodes / self.lanes))} episodes"
            )
        if self.budget_mode == "target" and not self.targets:
            raise ValueError("budget mode target needs at least one target sparsity; give --targets, such as 0.9")
        if self.budget_mode == "penalty" and self.targets:
            raise ValueError(
                f"targets {', '.join(map(str, self.targets))} were given, but budget mode penalty projects to none; "
                "choose --budget-mode target, or leave the targets out"
            )
        return self

    def short_training(self, steps_an_epoch: int) -> tuple[int, TrainingConfig]:
        """Epochs and training settings of the short fit.

        Args:
            steps_an_epoch: of this data at the short fit's own batch size.

        Returns:
            number of epochs, and the settings with what the short fit changes.
        """
        short = self.short_fit
        closed_form = short.start in ("spectral", "projected")
        plain = self.gentle_training(self.losses[0], 0, self.left_out[0]) if closed_form else self.training
        names = ("learning_rate", "learning_rate_decay", "learning_rate_floor", "batch_size", "decay")
        changed: dict[str, Any] = {name: value for name in names if (value := getattr(short, name)) is not None}
        if short.decay_batches is not None and "learning_rate_decay" in changed:
            changed["learning_rate_decay"] **= steps_an_epoch / short.decay_batches
        if short.batches is not None:
            epochs = -(-short.batches // steps_an_epoch)
        elif short.epochs is None:
            epochs = 0 if closed_form else PAPER_EPOCHS
        else:
            epochs = short.epochs
        return epochs, plain.model_copy(update=changed)
