"""Spectral starts: the scores of a dense SVD, for every backbone that allows them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from ciess.data import Interactions
from ciess.masks.mask import PrefixMask
from ciess.masks.sizes import full
from ciess.training.prepared import prepare
from ciess.training.starts.spectral import spectral_vectors
from ciess.training.starts.start import Start

RANK = 6


def normalised(data: Interactions, exponent: float, by_users: bool = False):
    """Degrees of both sides, the pairs as a matrix, and the rank-6 parts of Du^-1/2 R Di^-exponent."""
    dense = np.zeros((data.n_users, data.n_items))
    dense[data.train.users, data.train.items] = 1
    if by_users:
        dense = dense.T
    own, other = np.maximum(dense.sum(1), 1), np.maximum(dense.sum(0), 1)
    u, s, vt = np.linalg.svd(own[:, None] ** -0.5 * dense * other**-exponent)
    return own, other, dense, u[:, :RANK], s[:RANK], vt[:RANK].T


@pytest.mark.parametrize(("x", "p"), [(0.0, 0.0), (0.1, 0.25), (0.2, 1.0)])
@pytest.mark.parametrize("side", ["items", "users"])
def test_one_sided_masks_have_exactly_the_scores_of_the_rank_k_formula(
    exact: Interactions, begin_on, small_config, side: str, x: float, p: float
) -> None:
    """F_u = Du^-1/2 R Di^-1/2 F_i with F_i = Di^x V S^p: propagation gives the other side its rows."""
    data = exact
    other, own, dense, _, s, v = normalised(data, 0.5 - x, by_users=side == "users")
    rows = own[:, None] ** x * v * s**p
    scores = (other[:, None] ** -0.5 * dense * own**-0.5) @ rows @ rows.T
    scores = scores.T if side == "users" else scores
    stored = [RANK, 0] if side == "users" else [0, RANK]
    mask = PrefixMask(np.repeat(stored, [data.n_users, data.n_items]).astype(np.int16), 16)
    found = begin_on(data, small_config("lightgcn"), mask, Start("spectral", side, x, p))
    ours = found.recommender.score_users(torch.arange(data.n_users)).numpy()
    factor = (ours * scores).sum() / (scores * scores).sum()
    assert_allclose(ours, factor * scores, atol=0.02 * np.abs(factor * scores).max())


def test_the_vectors_of_one_side_are_consistent_with_propagation(data: Interactions) -> None:
    prepared = prepare(data, torch.device("cpu"))
    graph = prepared.graph("symmetric")
    for side, rows in (("items", slice(0, data.n_users)), ("users", slice(data.n_users, None))):
        vectors = spectral_vectors(prepared, Start("spectral", side, 0.1, 0.5), 8)
        torch.testing.assert_close(graph.multiply(vectors)[rows], vectors[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("b", "a", "p"), [(0.4, 0.2, 0.25), (0.5, 0.0, 0.0), (0.0, 0.4, 1.0)])
def test_items_have_exactly_the_scores_of_their_formula(
    exact: Interactions,
    begin_on,
    small_config,
    items_only: Callable[[int, int], PrefixMask],
    b: float,
    a: float,
    p: float,
) -> None:
    """(Du^-1/2 R Di^-b W)(Di^a W)' with W = V S^p cut to 6 columns (PureSVD, EigenRec)."""
    data = exact
    users, items, dense, _, s, v = normalised(data, b)
    rows = v * s**p
    expected = (users[:, None] ** -0.5 * dense * items**-b) @ rows @ (items[:, None] ** a * rows).T
    found = begin_on(data, small_config("items"), items_only(RANK, 16), Start("spectral", "items", b, p, a))
    ours = found.recommender.score_users(torch.arange(data.n_users)).numpy()
    assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


def test_ncf_begins_with_the_scores_of_both_sides_and_a_tower_that_adds_nothing(
    exact: Interactions, begin_on, small_config
) -> None:
    data = exact
    _, items, _, u, s, v = normalised(data, 0.4)
    expected = (u * s**0.5) @ (items[:, None] ** 0.1 * v * s**0.5).T
    mask = PrefixMask(np.full(data.n, RANK, np.int16), 16)
    found = begin_on(data, small_config("ncf"), mask, Start("spectral", "both", 0.1, 0.5))
    ours = found.recommender.score_users(torch.arange(data.n_users)).numpy()
    assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("backbone", ["lightgcn", "items", "ncf", "ngcf"])
def test_it_ranks_better_than_a_fresh_table_before_any_training(
    data: Interactions, begin, small_config, backbone: str
) -> None:
    side = "both" if backbone != "items" else "items"
    mask, config = full(data.n, 16), small_config(backbone)
    start = Start("spectral", side, 0.4 if backbone == "items" else 0.1, 0.5, 0.2)
    fresh, spectral = (begin(config, mask, s).validation.mean_quality() for s in (Start("fresh"), start))
    assert spectral > 1.5 * fresh
