"""The short fit of one iteration: a pure function of data, config and proposal (lines 7-11 of Algorithm 1)."""

from collections.abc import Mapping

from torch import Tensor

from ciess.data import Interactions
from ciess.fit import FitRequest, FitResult, fit
from ciess.masks import PrefixMask
from ciess.proposals import Outcome, Proposal
from ciess.search_config import SearchConfig
from ciess.seeds import derive_seed


def short_fit(
    data: Interactions, config: SearchConfig, proposal: Proposal, reference: Mapping[str, Tensor] | None = None
) -> Outcome:
    """Train a recommender under the proposed sizes for a few epochs and rank on validation (Eq. 8).

    reference: weights of the reference model, needed where the short fit starts from them. Raises FitError for a loss
    that is not finite.
    """
    result = fit(data, short_fit_request(data, config, proposal, reference))
    return outcome_of(proposal, result)


def short_fit_request(
    data: Interactions, config: SearchConfig, proposal: Proposal, reference: Mapping[str, Tensor] | None = None
) -> FitRequest:
    """What the short fit of a proposal trains."""
    short = config.short_fit
    batch_size = short.batch_size or config.training.batch_size
    epochs, training = config.short_training(-(-len(data.train) // batch_size))
    place = () if short.shared_seed else proposal.place
    return FitRequest(
        config.recommender().model_copy(update={"training": training}),
        PrefixMask(proposal.sizes, config.max_size),
        derive_seed(config.seed, "short fit", *place),
        epochs=epochs,
        initial=(reference or {}) if short.start == "reference" else {},
    )


def outcome_of(proposal: Proposal, result: FitResult) -> Outcome:
    """What the search is told of a fit."""
    assert result.validation is not None
    return Outcome(*proposal.place, result.validation.quality(), result.fit_seconds, result.evaluation_seconds)
