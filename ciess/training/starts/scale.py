"""A start at the scale that its loss asks for: rankings do not see it, gradients do."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ciess.config.models import WITHOUT_USERS
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.masks.mask import Mask, stored_side, with_fewer_users
from ciess.training.loop import FitRequest, Training
from ciess.training.losses import loss_of
from ciess.training.prepared import Prepared, prepare

FACTORS = tuple(2.0 ** (power / 4) for power in range(-32, 33))
"""Factors on the table that are tried."""

COARSE = 8
"""Every so many of them are tried first, as the losses have one valley."""

SAMPLE = 8192
"""Training pairs on which the loss is taken."""

USERS = 20_000
"""Users whose vectors it is taken over, where they are made of their items' rows."""


def scaled_to_loss(
    data: Interactions,
    prepared: Prepared,
    config: RecommenderConfig,
    mask: Mask,
    initial: Mapping[str, Tensor],
    seed: int,
) -> dict[str, Tensor]:
    """The weights with their table times the factor that makes the loss, its penalty included, smallest.

    Args:
        data: what is trained on.
        prepared: its shared parts.
        config: settings of the recommender; its `training` says the loss.
        mask: which entries exist.
        initial: `table` as float32[n, tables, max_size], and other parameters.
        seed: of the training.

    Returns:
        the weights.
    """
    settings = config.training.model_copy(update={"batch_size": SAMPLE, "sampling": "interaction"})
    table = initial["table"]
    if config.backbone in WITHOUT_USERS and data.n_users > USERS and stored_side(mask, data.n_users) == "items":
        mask, data = with_fewer_users(mask, data.n_users, USERS), prepared.reduced(data, USERS)
        prepared, initial = prepare(data, prepared.device), {**initial, "table": table[-data.n_items :]}
    request = FitRequest(config.model_copy(update={"training": settings}), mask, seed, initial=initial)
    training = Training(data, request, prepared)
    backbone = training.backbone.eval()
    batch = next(iter(training.batches(1)))
    with torch.no_grad():
        masked = training.embedding()
        once = backbone.encode(masked, training.graph) if backbone.linear else None

        def loss(place: int) -> float:
            factor = FACTORS[place]
            encoded = backbone.encode(masked * factor, training.graph) if once is None else once * factor
            found = float(loss_of(backbone, masked * factor, encoded, batch, settings, settings.decay))
            return found if math.isfinite(found) else math.inf

        factor = FACTORS[lowest(loss, len(FACTORS))]
    return {**initial, "table": table * factor}


def lowest(value: Callable[[int], float], count: int) -> int:
    """Where a function of 0..count - 1 that falls and then rises is lowest: few places first, then between them.

    Args:
        value: of a place.
        count: number of places.

    Returns:
        the place.
    """
    known: dict[int, float] = {}
    stride = COARSE
    best, places = 0, range(0, count, stride)
    while True:
        known |= {place: value(place) for place in places if place not in known}
        best = min(known, key=lambda place: (known[place], place))
        if stride == 1:
            return best
        stride //= 2
        places = range(max(0, best - stride), min(count, best + stride + 1), stride)
