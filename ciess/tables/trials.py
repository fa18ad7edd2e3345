"""The trainings among which validation chooses for one table: each a start and what is then minimised."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ciess import masks
from ciess.config.models import WITHOUT_USERS
from ciess.config.recommender import RecommenderConfig, TrainingConfig
from ciess.config.starts import TRAINED_ITEM_EXPONENT, WHOLE_PAIRS, StartedConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.masks.mask import Mask, PrefixMask
from ciess.tables.spec import TableSpec
from ciess.training.loop import FitRequest
from ciess.training.prepared import prepare
from ciess.training.starts.scale import scaled_to_loss
from ciess.training.starts.start import FRESH, Side, Start
from ciess.training.starts.tuning import tuned_projected, tuned_spectral
from ciess.training.starts.weights import initial_weights

Reference = Callable[[Interactions], Mapping[str, Tensor]]
"""From data to the weights of a full table that was trained on their training pairs."""


@dataclass(frozen=True)
class Trial:
    """A start and the training that goes on from it.

    Attributes:
        start: None where a method gives weights of its own.
        training: settings.
        side: whose rows alone are trained, `items` or `users`, while the other side's stay 0; None for all that the
            mask keeps.
        variant: tells trials apart that differ in numbers of their start alone.
    """

    start: Start | None
    training: TrainingConfig
    side: Side | None = None
    variant: str = ""

    @classmethod
    def of(cls, described: Mapping[str, Any], config: RecommenderConfig, pairs: int) -> "Trial":
        """The trial that `described` gave these words.

        Args:
            described: JSON.
            config: settings of then.
            pairs: training pairs of the data.

        Returns:
            the trial.
        """
        name = described["start"]["name"]
        if name in ("own", "fresh") or not isinstance(config, StartedConfig):
            return cls(None if name == "own" else FRESH, config.training)
        training = config.gentle_training(described["loss"], pairs, described["leave_one_out"])
        return cls(Start(**described["start"]), training, described.get("side"))

    @property
    def name(self) -> str:
        """Such as `spectral-squared`."""
        return "-".join(word for word in (self.kind, self.variant) if word)

    @property
    def kind(self) -> str:
        """Its name but for the variant: of trials of one kind the best goes on."""
        start = "own" if self.start is None else self.start.name
        words = [start, self.training.loss, "leave-one-out" if self.training.leave_one_out else "", self.side or ""]
        return "-".join(word for word in words if word)

    def described(self) -> dict[str, Any]:
        """For card and results, as JSON."""
        start = {"name": "own"} if self.start is None else self.start.described()
        words = {"start": start, "loss": self.training.loss, "leave_one_out": self.training.leave_one_out}
        return words if self.side is None else words | {"side": self.side}

    def configured(self, config: RecommenderConfig) -> RecommenderConfig:
        """Settings of a recommender that is trained so."""
        return config.recommender().model_copy(update={"training": self.training})

    def mask(self, mask: Mask, n_users: int) -> Mask:
        """The entries that are trained, out of those that a mask keeps."""
        if self.side is None:
            return mask
        assert isinstance(mask, PrefixMask)
        sizes = mask.sizes.copy()
        sizes[slice(n_users, None) if self.side == "users" else slice(0, n_users)] = 0
        return PrefixMask(sizes, mask.max_size)

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
        settings, mask = self.configured(config), self.mask(spec.mask, data.n_users)
        with cpu_threads(config.threads):
            prepared = prepare(data, resolve_device(config.device))
            initial = initial_weights(data, prepared, settings, mask, self.start, spec.seed, given)
            return scaled_to_loss(data, prepared, settings, mask, initial, spec.seed)


def training_fingerprint(
    data: Interactions, config: RecommenderConfig, request: FitRequest, start: Start | None = None
) -> str:
    """sha256 of all that the trainings of a table depend on but code.

    Args:
        data: training and validation pairs.
        config: settings of the recommender and its starts.
        request: of a fresh training of the table.
        start: of the table, where it is chosen already.

    Returns:
        64 hexadecimal digits; those of the request itself where training is fresh.
    """
    fresh = request.fingerprint(data)
    if not isinstance(config, StartedConfig) or config.start == "fresh":
        return fresh
    content = [fresh, config.model_dump_json(include={"start", "loss", "gentle"}), start and start.described()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def trials_of(
    data: Interactions, spec: TableSpec, config: RecommenderConfig, reference: Reference | None = None
) -> list[Trial]:
    """The trainings to try for a table, by `start` and `loss` of the config.

    Args:
        data: training and validation pairs.
        spec: the table.
        config: settings; without a start and a loss, training is fresh.
        reference: gives the reference that `cut` and `projected` begin from; without one `best` tries neither.

    Returns:
        one or more.
    """
    if spec.initial or spec.decoder:
        return [Trial(None, config.training)]
    if not isinstance(config, StartedConfig) or config.start == "fresh":
        return [Trial(FRESH, config.training)]
    with cpu_threads(config.threads):
        starts = _starts(data, spec, config, reference)
    found = [
        Trial(start, config.gentle_training(loss, len(data.train), left_out), side)
        for start, side in starts
        for loss, left_out in config.tried(len(data.train))
    ]
    found = [trial for one in found for trial in (one, *_variants(one, config, len(data.train)))]
    few = config.start == "best" and config.tries_softmax(len(data.train))
    if few and reference is not None and not _is_full(spec.mask, data, config):
        with cpu_threads(config.threads):
            start = _projected(data, spec, config, reference)
        found.append(Trial(start, config.gentle_training("softmax", len(data.train), config.left_out[0])))
    return found


def finalists(rivals: Sequence[Trial], merits: Sequence[float], rising: Sequence[bool]) -> list[Trial]:
    """Of trials of one kind those that go on: the best, and where it has stopped to rise the best that has not.

    Args:
        rivals: in the order in which they are tried.
        merits: quality of each so far.
        rising: whether its last evaluation was its best.

    Returns:
        them, in that order; of equals the first.
    """
    best = max(range(len(rivals)), key=lambda place: merits[place])
    others = [place for place in range(len(rivals)) if rising[place] and not rising[best]]
    found = {best, *([max(others, key=lambda place: merits[place])] if others else [])}
    return [rivals[place] for place in sorted(found)]


def _variants(trial: Trial, config: StartedConfig, pairs: int) -> list[Trial]:
    """The squared loss of `items` from the exponent of items that training makes most of."""
    start = trial.start
    if config.backbone not in WITHOUT_USERS or start is None or start.name != "spectral" or pairs > WHOLE_PAIRS:
        return []
    if trial.training.loss != "squared" or math.isclose(start.item_exponent, TRAINED_ITEM_EXPONENT, abs_tol=0.05):
        return []
    other = dataclasses.replace(start, item_exponent=TRAINED_ITEM_EXPONENT)
    return [dataclasses.replace(trial, start=other, variant=f"a{TRAINED_ITEM_EXPONENT:g}")]


def _starts(
    data: Interactions, spec: TableSpec, config: StartedConfig, reference: Reference | None
) -> list[tuple[Start, Side | None]]:
    prepared = prepare(data, resolve_device(config.device))
    if config.start == "cut":
        return [(Start("cut"), None)]
    if config.start == "projected":
        return [(_projected(data, spec, config, reference), None)]
    if spec.start is not None:
        return [(spec.start, None)]
    found: list[tuple[Start, Side | None]] = [(tuned_spectral(data, prepared, config, spec.mask, spec.seed)[0], None)]
    if config.backbone == "lightgcn" and _is_full(spec.mask, data, config):
        # Where memory is no question, rows of one side alone rank better than those of both on every data set measured.
        for side in ("items", "users"):
            one = Trial(None, config.training, side).mask(spec.mask, data.n_users)
            found.append((tuned_spectral(data, prepared, config, one, spec.seed)[0], side))
    return found


def _projected(data: Interactions, spec: TableSpec, config: StartedConfig, reference: Reference | None) -> Start:
    assert reference is not None
    prepared = prepare(data, resolve_device(config.device))
    return tuned_projected(data, prepared, config, spec.mask, spec.seed, reference(data))[0]


def _is_full(mask: Mask, data: Interactions, config: RecommenderConfig) -> bool:
    full = masks.full(data.n, config.max_size, masks.size_bounds(config, data.n_users, data.n_items))
    return isinstance(mask, PrefixMask) and np.array_equal(mask.sizes, full.sizes)
