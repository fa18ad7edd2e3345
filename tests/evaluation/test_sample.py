"""Which users stand for all, and that metrics say over whom they were taken."""

import numpy as np
import pytest
import torch

from ciess.data.planted import Planted
from ciess.evaluation.sample import EVERYONE, SAMPLED, evaluated_users
from ciess.masks.sizes import full
from ciess.training.fit import fit
from ciess.training.loop import FitRequest


@pytest.mark.parametrize(
    ("n_users", "wanted", "count"),
    [
        (50, None, None),
        (EVERYONE, None, None),
        (EVERYONE + 1, None, SAMPLED),
        (EVERYONE + 1, 0, None),
        (50, 7, 7),
        (50, 50, None),
        (50, 60, None),
    ],
)
def test_how_many(n_users: int, wanted: int | None, count: int | None) -> None:
    found = evaluated_users(n_users, wanted)
    assert (None if found is None else len(found)) == count


def test_a_sample_is_drawn_once_and_for_all_without_repeats() -> None:
    first, second = evaluated_users(1000, 100), evaluated_users(1000, 100)
    assert first is not None and second is not None
    np.testing.assert_array_equal(first, second)
    assert (np.diff(first) > 0).all() and first[0] >= 0 and first[-1] < 1000
    assert abs(first.mean() - 500) < 100


def test_metrics_of_the_sampled_users_are_those_of_a_full_ranking(planted: Planted, small_config) -> None:
    data, config = planted.data, small_config()
    every, some = (
        fit(data, FitRequest(config.model_copy(update={"evaluate_users": count}), full(data.n, 16), 0, epochs=1))
        for count in (0, 25)
    )
    users = evaluated_users(data.n_users, 25)
    others = np.setdiff1d(np.arange(data.n_users), users)
    for name, values in some.validation.values.items():
        np.testing.assert_array_equal(values[users], every.validation.values[name][users])
        assert (values[others] == 0).all()
    assert some.validation.counted.sum() == every.validation.counted[users].sum()
    assert not some.validation.counted[others].any()
    mean = every.validation.quality()[users][every.validation.counted[users]].mean(dtype=np.float64)
    assert some.validation.mean_quality() == pytest.approx(mean)


def test_the_interval_is_that_of_a_mean(planted: Planted, small_config) -> None:
    data = planted.data
    found = fit(data, FitRequest(small_config(), full(data.n, 16), 0, epochs=1)).validation
    values = found.quality()[found.counted].astype(np.float64)
    assert found.interval() == pytest.approx(1.96 * values.std(ddof=1) / len(values) ** 0.5)


def test_coverage_is_the_share_of_items_in_anyones_list(planted: Planted, small_config) -> None:
    data = planted.data
    result = fit(data, FitRequest(small_config(), full(data.n, 16), 0, epochs=1))
    scores = result.recommender.score_users(torch.arange(data.n_users)).numpy().copy()
    scores[data.train.users, data.train.items] = -np.inf
    lists = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    assert result.validation.coverage == pytest.approx(len(np.unique(lists)) / data.n_items)
