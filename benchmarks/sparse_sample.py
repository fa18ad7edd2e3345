"""Write a sparse sample of a data set as Parquet: a few interactions of every user, all of a few users or a few items.

    python benchmarks/sparse_sample.py yelp2018 OUT.parquet --pairs 3 --seed 0
    python benchmarks/sparse_sample.py yelp2018 OUT.parquet --users 5500 --core 5 --seed 0
    python benchmarks/sparse_sample.py yelp2018 OUT.parquet --items 8000 --core 5 --seed 0

A user keeps twice `--pairs` interactions, drawn uniformly, as half of them go to training (section 3.2); a core leaves
out users and items with fewer interactions, until none is left. Equal arguments write equal pairs.
"""

import argparse

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ciess.data import Interactions, Pairs
from ciess.data.readers import read


def sample(data: Interactions, pairs: int, seed: int) -> Pairs:
    """Twice `pairs` interactions of each user, all of those who have no more."""
    known = data.train + data.valid + data.test
    generator = np.random.Generator(np.random.PCG64(seed))
    order = np.lexsort((generator.random(len(known)), known.users))
    rank: npt.NDArray[np.int64] = np.empty(len(known), np.int64)
    rank[order] = np.arange(len(known)) - known.indptr(data.n_users)[known.users]
    return known.select(rank < 2 * pairs)


def of_some(data: Interactions, side: str, count: int, core: int, seed: int) -> Pairs:
    """All interactions of so many `users` or `items`, without rows that have fewer than `core` among these."""
    known = data.train + data.valid + data.test
    generator = np.random.Generator(np.random.PCG64(seed))
    rows, codes = (data.n_users, known.users) if side == "users" else (data.n_items, known.items)
    drawn = np.zeros(rows, bool)
    drawn[generator.choice(rows, count, replace=False)] = True
    kept = known.select(drawn[codes])
    while True:
        degrees = kept.degrees(data.n_users, data.n_items)
        enough = (degrees[kept.users] >= core) & (degrees[data.n_users + kept.items.astype(np.int64)] >= core)
        if enough.all():
            return kept
        kept = kept.select(enough)


def main(arguments: list[str] | None = None) -> None:
    """Write the file and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--pairs", type=int, default=3, help="training pairs a user")
    what.add_argument("--users", type=int, help="users, with all that they have")
    what.add_argument("--items", type=int, help="items, with all that they have")
    parser.add_argument("--core", type=int, default=1, help="fewest of a user and an item, with --users and --items")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    data = read(options.data)
    if options.users is not None:
        found = of_some(data, "users", options.users, options.core, options.seed)
    elif options.items is not None:
        found = of_some(data, "items", options.items, options.core, options.seed)
    else:
        found = sample(data, options.pairs, options.seed)
    users, items = data.user_ids.take(pa.array(found.users)), data.item_ids.take(pa.array(found.items))
    pq.write_table(pa.table({"user_id": users, "item_id": items}), options.out)
    print(
        f"{options.out}: {len(found):,} interactions of {len(np.unique(found.users)):,} users with "
        f"{len(np.unique(found.items)):,} items"
    )


if __name__ == "__main__":
    main()
