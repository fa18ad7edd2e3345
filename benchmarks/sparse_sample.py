"""Write a sparse sample of a data set as Parquet: a few interactions of every user, drawn uniformly.

    python benchmarks/sparse_sample.py yelp2018 OUT.parquet --pairs 3 --seed 0

A user keeps twice `--pairs` interactions, as half of them go to training
(section 3.2). Equal arguments write equal pairs.
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


def main(arguments: list[str] | None = None) -> None:
    """Write the file and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--pairs", type=int, default=3, help="training pairs a user")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    data = read(options.data)
    found = sample(data, options.pairs, options.seed)
    users, items = data.user_ids.take(pa.array(found.users)), data.item_ids.take(pa.array(found.items))
    pq.write_table(pa.table({"user_id": users, "item_id": items}), options.out)
    print(
        f"{options.out}: {len(found):,} interactions of {len(np.unique(found.users)):,} users with "
        f"{len(np.unique(found.items)):,} items"
    )


if __name__ == "__main__":
    main()
