"""How a data set is read and split."""

from typing import Annotated

from pydantic import Field, PositiveInt

from ciess.config.types import Frozen


class DataConfig(Frozen):
    """How a data set is read and split."""

    format: str = "auto"
    """movielens-dat, movielens-tab, movielens-csv, recbole, lightgcn, csv, tsv, parquet; `auto` looks at the file."""
    split_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random 50/25/25 split per user (section 3.2 gives the shares, published code uses 42)."""
    min_rating: float | None = None
    """Keep interactions rated at least this; by default every interaction counts (published code)."""
    min_interactions: PositiveInt = 1
    """Drop users with fewer interactions than this."""
    pool_splits: bool = False
    """Pool the parts of input that comes split, and split it anew (the paper's Yelp2018)."""
    drop_first_row: bool = False
    """Leave out the first row, as the published loader does."""
    user_column: str = "user_id"
    """Column of users in CSV, TSV and Parquet files."""
    item_column: str = "item_id"
    """Column of items in CSV, TSV and Parquet files."""
    rating_column: str = "rating"
    """Column of ratings in CSV, TSV and Parquet files."""
