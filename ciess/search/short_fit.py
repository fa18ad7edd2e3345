"""The short fit of one iteration: a pure function of data, config and proposal (lines 7-11 of Algorithm 1)."""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from ciess.config.recommender import RecommenderConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.errors import InputError
from ciess.masks.mask import PrefixMask
from ciess.search.proposals import Outcome, Proposal
from ciess.seeds import derive_seed
from ciess.training.fit import FitResult, fit
from ciess.training.loop import FitRequest
from ciess.training.prepared import prepare
from ciess.training.starts.projected import own_axes
from ciess.training.starts.scale import scaled_to_loss
from ciess.training.starts.start import Start
from ciess.training.starts.weights import JUDGED_STEPS, STEPS, initial_weights, stacked_weights

STACKED_BYTES = 64 << 20
"""Of the tables whose starts are solved side by side: the solver holds ten times as much."""

CLOSED_FORM = ("spectral", "projected")
"""Starts of short fits that depend on the mask."""


def starting_weights(config: SearchConfig, reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What every short fit of a search starts from, for `short_fit`: nothing, where that is drawn anew.

    With start `principal` the reference's table, float32[n, tables, max_size], is turned to its principal axes, so that
    its first d columns are its best approximation of rank d (Eckart and Young, 1936).

    Args:
        config: settings of the search.
        reference: Reference.weights.
    """
    if config.short_fit.start in ("fresh", "spectral"):
        return {}
    if config.short_fit.start in ("reference", "projected"):
        return dict(reference)
    with cpu_threads(config.threads):
        table = reference["table"][:, 0].double()
        return {**reference, "table": (table @ own_axes(table)).float().unsqueeze(1)}


def short_fit(
    data: Interactions, config: SearchConfig, proposal: Proposal, start: Mapping[str, Tensor] | None = None
) -> Outcome:
    """Train a recommender under the proposed sizes for a few epochs and rank on validation (Eq. 8).

    Args:
        data: interactions with n users and items.
        config: settings of the search.
        proposal: sizes to fit, int16[n].
        start: what `starting_weights` gives, needed where the short fit starts from the reference's weights.

    Raises:
        InputError: they are needed and not given.
        FitError: a loss that is not finite.
    """
    result = fit(data, short_fit_request(data, config, proposal, start))
    return outcome_of(proposal, result)


def stack(config: SearchConfig, proposals: Sequence[Proposal]) -> bool:
    """Whether `short_fits` solves these proposals side by side: untrained starts in closed form, two or more."""
    return config.short_fit.start in CLOSED_FORM and config.short_fit.epochs == 0 and len(proposals) > 1


def short_fits(
    data: Interactions, config: SearchConfig, proposals: Sequence[Proposal], start: Mapping[str, Tensor] | None = None
) -> Iterator[Outcome]:
    """Outcomes of several proposals of which `stack` holds, as `short_fit` finds each.

    Their starts are solved side by side, as columns of one table, with the same bits on a CPU.

    Args:
        data: interactions with n users and items.
        config: settings of the search.
        proposals: sizes to fit, int16[n] each.
        start: as for `short_fit`.

    Yields:
        an outcome a proposal, in order.
    """
    requests = [short_fit_request(data, config, proposal, start, solved=False) for proposal in proposals]
    together = max(1, STACKED_BYTES // (4 * data.n * config.max_size))
    for first in range(0, len(proposals), together):
        part = range(first, min(first + together, len(proposals)))
        began = time.perf_counter()
        with cpu_threads(config.threads):
            prepared = prepare(data, resolve_device(config.device))
            masks = [requests[place].mask for place in part]
            forms = [closed_form_start(config, proposals[place]) for place in part]
            seed, recommender = requests[first].seed, requests[first].config
            tables = stacked_weights(data, prepared, recommender, masks, forms, seed, start, JUDGED_STEPS)
        each = (time.perf_counter() - began) / len(part)
        for place, initial in zip(part, tables, strict=True):
            result = fit(data, dataclasses.replace(requests[place], initial=initial))
            outcome = outcome_of(proposals[place], result)
            yield dataclasses.replace(outcome, fit_seconds=outcome.fit_seconds + each)


def short_fit_request(
    data: Interactions,
    config: SearchConfig,
    proposal: Proposal,
    start: Mapping[str, Tensor] | None = None,
    solved: bool = True,
) -> FitRequest:
    """What the short fit of a proposal trains; solved: with its start in closed form, where it has one.

    Raises:
        InputError: it starts from weights that are not given.
    """
    short = config.short_fit
    initial: Mapping[str, Tensor] = {} if short.start in ("fresh", "spectral") else (start or {})
    if short.start not in ("fresh", "spectral") and "table" not in initial:
        raise InputError(
            f"short_fit.start is {short.start!r}, but no table to start from was given. Expected weights, `table` "
            "among them. Give what starting_weights makes of Reference.weights, or choose start 'fresh'."
        )
    plain = config.gentle_training(config.losses[0], 0, config.left_out[0])
    batch_size = short.batch_size or (plain if short.start in CLOSED_FORM else config.training).batch_size
    epochs, training = config.short_training(-(-len(data.train) // batch_size))
    slot = () if short.shared_seed else proposal.slot
    update: dict[str, Any] = {"training": training}
    if config.strategy != "td3":
        # Agents learn from every user; what is judged by its mean alone needs a sample.
        update["evaluate_users"] = min(config.kinds.judged_users, data.n_users)
    recommender = config.recommender().model_copy(update=update)
    mask, seed = PrefixMask(proposal.sizes, config.max_size), derive_seed(config.seed, "short fit", *slot)
    if solved and short.start in CLOSED_FORM:
        form = closed_form_start(config, proposal)
        initial = _closed_form(data, config, recommender, mask, form, seed, initial, scaled=epochs > 0)
    return FitRequest(recommender, mask, seed, epochs=epochs, initial=initial, halves=config.halves)


def closed_form_start(config: SearchConfig, proposal: Proposal | None = None) -> Start:
    """The start of short fits that begin in closed form: the proposal's own, where it has one."""
    if proposal is not None and proposal.start is not None:
        return proposal.start
    short = config.short_fit
    if short.start == "projected":
        return Start("projected")
    item_exponent = short.item_exponent if config.backbone == "items" else 0.0
    return Start("spectral", short.side, short.exponent, short.power, item_exponent)


def _closed_form(
    data: Interactions,
    config: SearchConfig,
    recommender: RecommenderConfig,
    mask: PrefixMask,
    start: Start,
    seed: int,
    reference: Mapping[str, Tensor],
    scaled: bool,
) -> Mapping[str, Tensor]:
    with cpu_threads(config.threads):
        prepared = prepare(data, resolve_device(config.device))
        steps = STEPS if scaled else JUDGED_STEPS
        initial = initial_weights(data, prepared, recommender, mask, start, seed, reference, steps)
        return scaled_to_loss(data, prepared, recommender, mask, initial, seed) if scaled else initial


def outcome_of(proposal: Proposal, result: FitResult) -> Outcome:
    """What the search is told of a fit."""
    found = result.validation
    assert found is not None
    searched = found.parts[0] if found.parts else found
    choice = found.parts[1].mean_quality() if found.parts else None
    return Outcome(*proposal.slot, searched.quality(), result.fit_seconds, result.evaluation_seconds, choice)
