"""Made-up interactions with a known answer: which rows need many embedding dimensions.

Every user and item has a latent vector, and users choose the items with the highest utility (inner
product plus item bias plus Gumbel noise). A share of the rows, the needy ones, have vectors that are
dense in `needy_dimensions`; all others live in the first `plain_dimensions`. So few dimensions
cannot rank the needy items for the needy users, and are enough for everyone else: a model without
biases spends one dimension on popularity and `plain_dimensions` on the rest.

Degrees do not give the answer away: how active a user is and how popular an item is are drawn
skewed and independently of neediness, and item biases are balanced to meet the drawn popularity.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess.data.interactions import Interactions, Pairs
from ciess.data.splitting import split_per_user
from ciess.errors import InputError

Floats = npt.NDArray[np.float64]
PLANTED_STREAM = 0x9A27ED
LEAST_INTERACTIONS = 8
BALANCING_ROUNDS = 40
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Planted:
    """Planted interactions and their answer.

    Attributes:
        data: the interactions; ids are whole numbers.
        needy: bool[n], users first: rows whose preferences have high intrinsic dimension.
    """

    data: Interactions
    needy: npt.NDArray[np.bool_]


def planted(
    seed: int = 0,
    n_users: int = 600,
    n_items: int = 400,
    *,
    needy_share: float = 0.25,
    needy_dimensions: int = 8,
    plain_dimensions: int = 1,
    interactions_per_user: float = 60.0,
    needy_sharpness: float = 10.0,
    plain_sharpness: float = 2.0,
    skew: float = 0.6,
    split_seed: int = 0,
) -> Planted:
    """Make a planted data set; equal arguments make equal data.

    Args:
        seed: seed of everything but the split.
        n_users: users.
        n_items: items; those that nobody chooses get no row, as in data that is read.
        needy_share: share of needy rows on either side, in (0, 1).
        needy_dimensions: latent dimensions of needy rows.
        plain_dimensions: latent dimensions of all other rows, below needy_dimensions.
        interactions_per_user: mean number of interactions, between 8 and n_items / 2.
        needy_sharpness: standard deviation of affinities among needy rows, where the noise of a choice
            has 1.28; high means few surprises.
        plain_sharpness: the same among all other rows.
        skew: standard deviation of the log of activity and popularity.
        split_seed: seed of the 50/25/25 split.

    Returns:
        the data and the answer.

    Raises:
        InputError: an argument is out of its range.
    """
    _check(seed, n_users, n_items, needy_share, needy_dimensions, plain_dimensions, interactions_per_user)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([PLANTED_STREAM, seed])))
    needy_users = _needy(generator, n_users, needy_share)
    needy_items = _needy(generator, n_items, needy_share)
    kinds = ((needy_dimensions, needy_sharpness), (plain_dimensions, plain_sharpness))
    users = _latent(generator, needy_users, *kinds)
    items = _latent(generator, needy_items, *kinds)
    activity = _activity(generator, n_users, n_items, interactions_per_user, skew)
    popularity = np.exp(skew * generator.standard_normal(n_items))
    popularity *= activity.sum() / popularity.sum()
    bias = _balanced_bias(users, items, activity, popularity)
    pairs, kept_items = _chosen(generator, users, items, bias, activity)

    train, valid, test = split_per_user(pairs, n_users, split_seed, "planted")
    data = Interactions(
        name="planted",
        source="planted",
        user_ids=pa.array(np.arange(n_users)),
        item_ids=pa.array(kept_items),
        train=train,
        valid=valid,
        test=test,
        split_seed=split_seed,
        sha256=hashlib.sha256(pairs.users.tobytes() + kept_items[pairs.items].tobytes()).hexdigest(),
        notes=(f"{n_items - len(kept_items):,} items that nobody chose have no row.",)
        if len(kept_items) < n_items
        else (),
    )
    return Planted(data, np.concatenate([needy_users, needy_items[kept_items]]))


def _check(
    seed: int,
    n_users: int,
    n_items: int,
    needy_share: float,
    needy_dimensions: int,
    plain_dimensions: int,
    interactions_per_user: float,
) -> None:
    checks = (
        ("seed", seed, seed >= 0, "a whole number from 0"),
        ("n_users", n_users, n_users >= 8, "8 or more"),
        ("n_items", n_items, n_items >= 2 * LEAST_INTERACTIONS, f"{2 * LEAST_INTERACTIONS} or more"),
        ("needy_share", needy_share, 0 < needy_share < 1, "between 0 and 1"),
        ("plain_dimensions", plain_dimensions, plain_dimensions >= 1, "1 or more"),
        (
            "needy_dimensions",
            needy_dimensions,
            needy_dimensions > plain_dimensions,
            f"more than plain_dimensions={plain_dimensions}",
        ),
        (
            "interactions_per_user",
            interactions_per_user,
            LEAST_INTERACTIONS <= interactions_per_user <= n_items / 2,
            f"from {LEAST_INTERACTIONS} to n_items / 2 = {n_items / 2:g}",
        ),
    )
    for name, value, holds, expected in checks:
        if not holds:
            raise InputError(f"planted: {name} is {value}. Expected {expected}. Pass {name} within this range.")


def _needy(generator: np.random.Generator, size: int, share: float) -> npt.NDArray[np.bool_]:
    flags = np.zeros(size, bool)
    flags[generator.permutation(size)[: max(1, round(share * size))]] = True
    return flags


def _latent(
    generator: np.random.Generator,
    needy: npt.NDArray[np.bool_],
    needy_kind: tuple[int, float],
    plain_kind: tuple[int, float],
) -> Floats:
    """Vectors float64[rows, needy_dimensions]; affinities among rows of one kind have variance sharpness^2."""
    vectors = generator.standard_normal((len(needy), needy_kind[0]))
    vectors[~needy, plain_kind[0] :] = 0.0
    dimensions, sharpness = np.where(needy[:, None], needy_kind, plain_kind).T
    scaled: Floats = vectors * (sharpness**2 / dimensions)[:, None] ** 0.25
    return scaled


def _activity(
    generator: np.random.Generator, n_users: int, n_items: int, mean: float, skew: float
) -> npt.NDArray[np.int64]:
    raw = np.exp(skew * generator.standard_normal(n_users))
    counts = np.rint(raw * (mean / raw.mean())).astype(np.int64)
    clipped: npt.NDArray[np.int64] = np.clip(counts, LEAST_INTERACTIONS, n_items // 2)
    return clipped


def _balanced_bias(users: Floats, items: Floats, activity: npt.NDArray[np.int64], popularity: Floats) -> Floats:
    """Item biases under which the expected number of choices of each item is its drawn popularity.

    Drawing k items without replacement takes an item of weight w with probability near 1 - exp(-t w),
    t such that the probabilities sum to k; biases and every user's t are brought into line in turn.
    """
    bias: Floats = np.log(popularity / popularity.mean())
    log_reach = np.concatenate(
        [np.log(activity[rows]) - np.logaddexp.reduce(users[rows] @ items.T + bias, axis=1) for rows in _blocks(users)]
    )
    for _ in range(BALANCING_ROUNDS):
        expected = np.zeros(len(items))
        for rows in _blocks(users):
            # From 4 on the probability is 1 in double precision.
            exponent = np.minimum(users[rows] @ items.T + bias + log_reach[rows, None], 4.0)
            taken = -np.expm1(-np.exp(exponent))
            expected += taken.sum(axis=0)
            log_reach[rows] += np.log(activity[rows] / taken.sum(axis=1))
        bias += np.log(popularity / np.maximum(expected, np.finfo(float).tiny))
    return bias


def _blocks(users: Floats) -> list[slice]:
    """Slices of users, so that users x items never exists as a whole."""
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(users), ROWS_AT_ONCE)]


def _chosen(
    generator: np.random.Generator, users: Floats, items: Floats, bias: Floats, activity: npt.NDArray[np.int64]
) -> tuple[Pairs, npt.NDArray[np.int64]]:
    """Each user's `activity` best items under Gumbel noise, which is drawing without replacement from the softmax."""
    chosen_users, chosen_items = [], []
    for rows in _blocks(users):
        utility = users[rows] @ items.T + bias
        utility += generator.gumbel(size=utility.shape)
        ranking = np.argsort(-utility, axis=1)
        row, position = np.nonzero(np.arange(len(items)) < activity[rows, None])
        chosen_users.append(row + rows.start)
        chosen_items.append(ranking[row, position])
    kept_items, codes = np.unique(np.concatenate(chosen_items), return_inverse=True)
    return Pairs.sorted(np.concatenate(chosen_users), codes), kept_items
