from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from ciess.data import Interactions, Pairs
from ciess.data.planted import Planted
from ciess.errors import FitError
from ciess.training.sampling import Sampler, Triples

CPU = torch.device("cpu")
UNLIKELY = 1e-3


def sampler_of(data: Interactions) -> Sampler:
    return Sampler(data.train, data.n_users, data.n_items, CPU)


def flat(triples: Triples) -> tuple[npt.NDArray[np.int64], ...]:
    parts = (triples.users, triples.positives, triples.negatives)
    return tuple(torch.cat(part).numpy() for part in parts)


def training_matrix(data: Interactions) -> npt.NDArray[np.bool_]:
    matrix = np.zeros((data.n_users, data.n_items), dtype=bool)
    matrix[data.train.users, data.train.items] = True
    return matrix


@pytest.fixture(scope="module")
def draws(tiny: Interactions) -> npt.NDArray[np.int64]:
    """How often each (user, positive, negative) comes in 100,000 triples of the tiny data."""
    sampler, counts = sampler_of(tiny), np.zeros((5, 7, 7), dtype=np.int64)
    for epoch in range(5):
        np.add.at(counts, flat(sampler.epoch(0, epoch, 10_000)), 1)
    return counts


def test_an_epoch_of_tiny_data_is_two_batches(tiny: Interactions) -> None:
    # 11 training pairs: ceil(11 / 10,000) would be one batch, ceil(11 / 6) is two.
    assert sampler_of(tiny).steps(10_000) == 1
    assert sampler_of(tiny).steps(6) == 2
    assert [len(batch) for batch in sampler_of(tiny).epoch(0, 1, 6).users] == [6, 6]


@pytest.mark.parametrize("sampling", ["user", "interaction"])
def test_positives_are_training_items_and_negatives_never(planted: Planted, sampling) -> None:
    matrix = training_matrix(planted.data)
    for epoch in range(20):
        users, positives, negatives = flat(sampler_of(planted.data).epoch(3, epoch, 400, sampling))
        assert matrix[users, positives].all()
        assert not matrix[users, negatives].any()
        assert negatives.min() >= 0
        assert negatives.max() < planted.data.n_items


def test_users_are_uniform(planted: Planted) -> None:
    sampler = sampler_of(planted.data)
    users = np.concatenate([flat(sampler.epoch(0, epoch, 10_000))[0] for epoch in range(10)])
    assert stats.chisquare(np.bincount(users, minlength=planted.data.n_users)).pvalue > UNLIKELY


def test_positives_are_uniform_over_a_users_items(tiny: Interactions) -> None:
    sampler, matrix = sampler_of(tiny), training_matrix(tiny)
    counts = np.zeros((5, 7), dtype=np.int64)
    for epoch in range(5):
        users, positives, _ = flat(sampler.epoch(1, epoch, 10_000))
        np.add.at(counts, (users, positives), 1)
    for user in (0, 1, 2, 4):
        assert stats.chisquare(counts[user, matrix[user]]).pvalue > UNLIKELY


def test_negatives_are_uniform_over_all_items_a_user_has_not_trained_on(
    tiny: Interactions, draws: npt.NDArray[np.int64]
) -> None:
    matrix = training_matrix(tiny)
    for user in range(5):
        assert stats.chisquare(draws[user].sum(axis=0)[~matrix[user]]).pvalue > UNLIKELY


def test_negatives_are_independent_of_positives(tiny: Interactions, draws: npt.NDArray[np.int64]) -> None:
    matrix = training_matrix(tiny)
    for user in (0, 1, 2, 4):
        table = draws[user][matrix[user]][:, ~matrix[user]]
        assert stats.chi2_contingency(table).pvalue > UNLIKELY


def test_negatives_of_planted_users_are_uniform_too(planted: Planted) -> None:
    sampler, matrix = sampler_of(planted.data), training_matrix(planted.data)
    counts = np.zeros(matrix.shape, dtype=np.int64)
    for epoch in range(20):
        users, _, negatives = flat(sampler.epoch(0, epoch, 10_000))
        np.add.at(counts, (users, negatives), 1)
    pvalues = [stats.chisquare(row[~trained]).pvalue for row, trained in zip(counts, matrix, strict=True)]
    assert stats.kstest(pvalues, "uniform").pvalue > UNLIKELY


def test_interaction_sampling_visits_every_training_pair_once(planted: Planted) -> None:
    triples = sampler_of(planted.data).epoch(0, 1, 400, "interaction")
    users, positives, _ = flat(triples)
    train = planted.data.train
    assert Counter(zip(users, positives, strict=True)) == Counter(zip(train.users, train.items, strict=True))
    assert [len(batch) for batch in triples.negatives] == [400, 400, 400, len(train) - 1200]
    assert (np.diff(users) < 0).any()  # shuffled


@pytest.mark.parametrize("sampling", ["user", "interaction"])
def test_triples_are_a_function_of_seed_and_epoch(planted: Planted, sampling) -> None:
    first = flat(sampler_of(planted.data).epoch(5, 2, 400, sampling))
    sampler = sampler_of(planted.data)
    sampler.epoch(9, 9, 100, sampling)
    torch.rand(3, generator=torch.Generator().manual_seed(1))
    for part, again in zip(first, flat(sampler.epoch(5, 2, 400, sampling)), strict=True):
        np.testing.assert_array_equal(again, part)
    for other in ((5, 3), (6, 2)):
        assert (flat(sampler.epoch(*other, 400, sampling))[2] != first[2]).any()


def test_users_who_have_everything_or_nothing_are_refused() -> None:
    everything = Pairs.sorted(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 1]))
    with pytest.raises(FitError, match=r"^0 users have no training item and 1 have all 3 of them, but .* min_interact"):
        Sampler(everything, 2, 3, CPU)
    nothing = Pairs.sorted(np.array([0, 2]), np.array([0, 1]))
    with pytest.raises(FitError, match=r"^1 users have no training item and 0 have all 3 of them"):
        Sampler(nothing, 3, 3, CPU)


def test_a_user_with_one_item_left_gets_always_that_one() -> None:
    pairs = Pairs.sorted(np.array([0, 0, 0, 1]), np.array([0, 1, 3, 3]))
    users, _, negatives = flat(Sampler(pairs, 2, 4, CPU).epoch(0, 1, 1000))
    assert set(negatives[users == 0].tolist()) == {2}
    assert set(negatives[users == 1].tolist()) == {0, 1, 2}
