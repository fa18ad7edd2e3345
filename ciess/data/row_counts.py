"""How many rows a table over users and items has."""

import pyarrow as pa


class RowCounts:
    """Counts of what holds the original ids of users and items.

    Attributes:
        user_ids: n_users original ids, position = code.
        item_ids: n_items original ids, position = code.
    """

    user_ids: pa.Array
    item_ids: pa.Array

    @property
    def n_users(self) -> int:
        """Number of users, |U|."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items, |V|."""
        return len(self.item_ids)

    @property
    def n(self) -> int:
        """Number of rows of an embedding table, |U| + |V|; users come first."""
        return self.n_users + self.n_items
