"""Kinds of rows: bins by popularity, and what a vector of numbers makes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciess import masks
from ciess.config.kinds import KindsConfig
from ciess.masks.bounds import SizeBounds
from ciess.masks.popularity import sized_mask
from ciess.search.kinds import Kinds, bin_count, bins_of, standardised
from ciess.training.starts.rule import Rule
from ciess.training.starts.start import Start

RULE = Rule(0.5, 0.5, Start("spectral", "both", 0.1, 0.5))
N_USERS, N_ITEMS, MAX_SIZE = 30, 40, 16


def degrees() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60, N_USERS + N_ITEMS).astype(np.int64)


def kinds(backbone: str = "lightgcn", low: int = 0, **settings: int) -> Kinds:
    bounds = SizeBounds.uniform(N_USERS + N_ITEMS, low, MAX_SIZE)
    return Kinds(degrees(), N_USERS, backbone, MAX_SIZE, bounds, KindsConfig(**settings))


@pytest.mark.parametrize(("rows", "count"), [(3_706, 12), (1_682, 10), (38_048, 16), (10**7, 16), (5, 1)])
def test_bins_follow_the_number_of_rows(rows: int, count: int) -> None:
    assert bin_count(rows) == count


@given(rows=st.integers(1, 400), count=st.integers(1, 14), seed=st.integers(0, 99))
def test_bins_are_of_popularity_and_grow_towards_the_tail(rows: int, count: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 100, rows)
    found = bins_of(drawn, count)
    order = np.argsort(-drawn, kind="stable")
    assert (np.diff(found[order]) >= 0).all() and found[order][0] == 0 and found.max() < count
    sizes = np.bincount(found)
    # The first holds the head, from which edges grow geometrically; rounding takes one row at most.
    assert (sizes > 0).all() and (np.diff(sizes[1:]) >= -1).all()


@pytest.mark.parametrize("low", [0, 1])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_vector_of_zeros_is_the_rule(share: float, low: int) -> None:
    made = kinds(low=low)
    rule = Rule(share, 0.75, RULE.start)
    mask, start = made.decode(np.zeros(len(made.names)), rule, 0.8)
    expected = sized_mask(made.degrees, N_USERS, MAX_SIZE, 0.8, made.bounds, share, 0.75)
    assert np.array_equal(mask.sizes, expected.sizes) and start == rule.start


@given(seed=st.integers(0, 999), sparsity=st.sampled_from([0.5, 0.8, 0.95]), low=st.sampled_from([0, 1]))
def test_every_vector_keeps_the_budget_and_the_bounds(seed: int, sparsity: float, low: int) -> None:
    made = kinds(low=low if sparsity < 0.9 else 0)
    vector = np.random.default_rng(seed).normal(0, 2, len(made.names))
    mask, start = made.decode(vector, RULE, sparsity)
    assert mask.kept <= masks.budget(N_USERS + N_ITEMS, MAX_SIZE, sparsity, made.bounds)
    assert (mask.sizes >= made.bounds.low).all() and start is not None
    # One grid for exponents, as each is worth a decomposition.
    assert round(start.exponent / 0.05) * 0.05 == pytest.approx(start.exponent)


def test_a_heavier_bin_gets_more_and_a_side_may_get_nothing() -> None:
    made = kinds(item_bins=3, user_bins=2)
    assert made.names == [
        *("items 0", "items 1", "items 2", "users 0", "users 1"),
        *("item share", "exponent", "power"),
    ]
    plain = made.decode(np.zeros(8), RULE, 0.8)[0].sizes
    heavy = made.decode(np.eye(8)[2], RULE, 0.8)[0].sizes
    tail = np.flatnonzero(made.item_bins == 2) + N_USERS
    assert heavy[tail].sum() > plain[tail].sum()
    others = np.flatnonzero(made.item_bins < 2) + N_USERS
    assert heavy[others].sum() < plain[others].sum()
    assert made.decode(5 * np.eye(8)[5], RULE, 0.8)[0].sizes[:N_USERS].sum() == 0
    assert made.decode(-5 * np.eye(8)[5], RULE, 0.8)[0].sizes[N_USERS:].sum() == 0


def test_a_backbone_without_users_has_no_numbers_for_them() -> None:
    bounds = SizeBounds(
        np.repeat([0, 1], [N_USERS, N_ITEMS]).astype(np.int16),
        np.repeat([0, MAX_SIZE], [N_USERS, N_ITEMS]).astype(np.int16),
    )
    made = Kinds(degrees(), N_USERS, "items", MAX_SIZE, bounds, KindsConfig(item_bins=2))
    assert made.names == ["items 0", "items 1", "exponent", "power", "item exponent"]
    mask, start = made.decode(np.array([0, 1, 1, 1, 1.0]), Rule(1.0, 0.5, Start("spectral", "items", 0.3)), 0.8)
    assert mask.sizes[:N_USERS].sum() == 0 and (mask.sizes[N_USERS:] > 0).all()
    assert start == Start("spectral", "items", 0.4, 0.25, 0.2)


def test_traits_are_standardised_within_bins_and_cut_off() -> None:
    bins = np.array([0] * 40 + [1] * 3 + [2])
    traits = np.zeros((44, 2), np.float32)
    traits[0, 0] = 5.0
    traits[40:43, 0] = [1.0, 2.0, 3.0]
    traits[:, 1] = 0.7
    found = standardised(traits, bins)
    assert found[0, 0] == 3.0 and abs(found[1:40, 0]).max() < 0.2
    np.testing.assert_allclose(found[40:43, 0], [-(1.5**0.5), 0, 1.5**0.5], rtol=1e-6)
    assert found[43, 0] == 0 and (found[:, 1] == 0).all()


@pytest.mark.parametrize("backbone", ["lightgcn", "items"])
def test_a_trait_moves_sizes_within_bins_and_nothing_at_0(backbone: str) -> None:
    bounds = SizeBounds.uniform(N_USERS + N_ITEMS, 0, MAX_SIZE)
    traits = np.random.default_rng(1).random((N_USERS + N_ITEMS, 2)).astype(np.float32)
    made = Kinds(degrees(), N_USERS, backbone, MAX_SIZE, bounds, KindsConfig(item_bins=2, user_bins=1), traits)
    plain = Kinds(degrees(), N_USERS, backbone, MAX_SIZE, bounds, KindsConfig(item_bins=2, user_bins=1))
    assert len(made.names) - len(plain.names) == made.trait_count == (4 if backbone == "lightgcn" else 2)
    vector, short = np.zeros(len(made.names)), np.zeros(len(plain.names))
    assert np.array_equal(made.decode(vector, RULE, 0.8)[0].sizes, plain.decode(short, RULE, 0.8)[0].sizes)
    vector[made.of_traits[0]] = 1.0
    found = made.decode(vector, RULE, 0.8)[0].sizes[N_USERS:].astype(float)
    before = plain.decode(short, RULE, 0.8)[0].sizes[N_USERS:]
    for bin_ in range(2):
        inside = made.item_bins == bin_
        assert np.corrcoef(found[inside] - before[inside], traits[N_USERS:, 0][inside])[0, 1] > 0.6
