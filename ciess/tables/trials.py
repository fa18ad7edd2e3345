"""The trainings among which validation chooses for one table: each a start and what is then minimised."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ciess.config.recommender import RecommenderConfig, TrainingConfig
from ciess.config.starts import StartedConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.tables.spec import TableSpec
from ciess.training.prepared import prepare
from ciess.training.starts.scale import scaled_to_loss
from ciess.training.starts.start import FRESH, Start
from ciess.training.starts.tuning import tuned_projected, tuned_spectral
from ciess.training.starts.weights import check_start, starting_weights

Reference = Callable[[Interactions], Mapping[str, Tensor]]
"""From data to the weights of a full table that was trained on their training pairs."""


@dataclass(frozen=True)
class Trial:
    """A start and the training that goes on from it.

    Attributes:
        start: None where a method gives weights of its own.
        training: settings.
    """

    start: Start | None
    training: TrainingConfig

    @property
    def name(self) -> str:
        """Such as `spectral-squared`."""
        return f"{'own' if self.start is None else self.start.name}-{self.training.loss}"

    def described(self) -> dict[str, Any]:
        """For card and results, as JSON."""
        start = {"name": "own"} if self.start is None else self.start.described()
        return {"start": start, "loss": self.training.loss}

    def configured(self, config: RecommenderConfig) -> RecommenderConfig:
        """Settings of a recommender that is trained so."""
        return config.recommender().model_copy(update={"training": self.training})

    def weights(
        self, data: Interactions, spec: TableSpec, config: RecommenderConfig, reference: Reference | None
    ) -> Mapping[str, Tensor]:
        """What the training begins with on these data.

        Args:
            data: what is trained on: for a refit, training and validation pairs.
            spec: the table.
            config: settings of the recommender.
            reference: gives the reference of such data.

        Returns:
            weights for `FitRequest.initial`.
        """
        if self.start is None:
            return spec.initial
        if self.start.name == "fresh":
            return {}
        given = reference(data) if reference is not None and self.start.name in ("cut", "projected") else None
        settings = self.configured(config)
        with cpu_threads(config.threads):
            prepared = prepare(data, resolve_device(config.device))
            initial = starting_weights(data, prepared, settings, spec.mask, self.start, spec.seed, given)
            return scaled_to_loss(data, prepared, settings, spec.mask, initial, spec.seed)


def trials_of(
    data: Interactions, spec: TableSpec, config: RecommenderConfig, reference: Reference | None = None
) -> list[Trial]:
    """The trainings to try for a table, by `start` and `loss` of the config.

    Args:
        data: training and validation pairs.
        spec: the table.
        config: settings; without a start and a loss, training is fresh.
        reference: gives the reference; where there is one, `best` tries to project it, too.

    Returns:
        one or more.

    Raises:
        InputError: a start that the backbone does not allow.
    """
    if spec.initial or spec.decoder:
        return [Trial(None, config.training)]
    if not isinstance(config, StartedConfig) or config.start == "fresh":
        return [Trial(FRESH, config.training)]
    starts = [spec.start] if spec.start is not None else []
    with cpu_threads(config.threads):
        prepared = prepare(data, resolve_device(config.device))
        if config.start in ("best", "spectral") and not starts:
            starts.append(tuned_spectral(data, prepared, config, spec.mask, spec.seed)[0])
        if config.start == "cut":
            check_start(config.backbone, "cut")
            starts = [Start("cut")]
        elif config.start == "projected" or (config.start == "best" and _may_project(config, reference)):
            check_start(config.backbone, "projected")
            assert reference is not None
            given = reference(data)
            projected = tuned_projected(data, prepared, config, spec.mask, spec.seed, given)[0]
            starts = [projected] if config.start == "projected" else [*starts, projected]
    pairs = len(data.train)
    return [Trial(start, config.gentle_training(loss, pairs)) for start in starts for loss in config.losses]


def _may_project(config: StartedConfig, reference: Reference | None) -> bool:
    return reference is not None and config.backbone == "lightgcn"
