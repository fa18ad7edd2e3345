"""Write a large synthetic data set as Parquet: users and items in clusters, with popularities by a power law.

    python benchmarks/synthetic.py OUT.parquet --users 1000000 --items 200000 --interactions 19000000 --seed 0

Equal arguments write equal pairs.
"""

import argparse

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

CLUSTERS = 400
"""Groups of items that users keep to."""

TASTES = 3
"""Clusters of a user."""

LOYALTY = 0.8
"""Share of a user's interactions that stay in its clusters; the others go to any item, by popularity."""

EXPONENT = 0.8
"""The item of popularity rank r is drawn in proportion to r^-0.8."""

SPREAD = 0.9
"""Standard deviation of the logarithm of the users' degrees."""

LEAST = 8
"""Fewest draws of a user, so that all three parts of a split hold one."""

REPEATS = 1.08
"""Draws an interaction: a pair that is drawn twice counts once (measured at the default sizes)."""


def draw(users: int, items: int, interactions: int, seed: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Pairs of users and items, each once, sorted by user: int32[m] with m about `interactions`."""
    generator = np.random.Generator(np.random.PCG64(seed))
    cluster = np.sort(generator.integers(0, CLUSTERS, items))
    weights = (1.0 + generator.permutation(items)) ** -EXPONENT
    cumulated = np.cumsum(weights)
    ends = np.append(0, np.cumsum(np.bincount(cluster, minlength=CLUSTERS)))
    bounds = np.append(0.0, cumulated)[ends]
    degrees = np.exp(SPREAD * generator.standard_normal(users))
    degrees = np.maximum(LEAST, np.rint(degrees * (REPEATS * interactions / degrees.sum()))).astype(np.int64)
    tastes = generator.integers(0, CLUSTERS, (users, TASTES))
    owners = np.repeat(np.arange(users, dtype=np.int32), degrees)
    chosen = tastes[owners, generator.integers(0, TASTES, len(owners))]
    loyal = generator.random(len(owners)) < LOYALTY
    low = np.where(loyal, bounds[chosen], 0.0)
    high = np.where(loyal, bounds[chosen + 1], cumulated[-1])
    points = low + generator.random(len(owners)) * (high - low)
    picked = np.minimum(np.searchsorted(cumulated, points, side="right"), items - 1)
    keys = np.unique(owners.astype(np.int64) * items + picked)
    return (keys // items).astype(np.int32), (keys % items).astype(np.int32)


def main(arguments: list[str] | None = None) -> None:
    """Write the file and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--interactions", type=int, default=19_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    users, items = draw(options.users, options.items, options.interactions, options.seed)
    pq.write_table(pa.table({"user_id": users, "item_id": items}), options.out)
    counts = np.bincount(items, minlength=options.items)
    print(
        f"{options.out}: {len(users):,} interactions of {len(np.unique(users)):,} users with "
        f"{int((counts > 0).sum()):,} items; the most popular has {counts.max():,}"
    )


if __name__ == "__main__":
    main()
