"""`ciess recommend`."""

from typing import Annotated

import tyro


def recommend(
    table: Annotated[str, tyro.conf.Positional],
    user: str | None = None,
    history: list[str] | None = None,
    users: str | None = None,
    out: str | None = None,
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10,
    include_seen: bool = False,
) -> None:
    """Recommend items from a saved table, known items left out.

    Args:
        table: folder of a saved table, such as runs/es/tables/equal-c90-s0.
        user: one user, by the id of your own data.
        history: in place of a user, items that someone liked who need not be in the training data.
        users: a file with one user id a line, or a Parquet file with a column user_id.
        out: with --users, the Parquet or CSV file to write: user_id, rank, item_id, score.
        k: items a user.
        include_seen: recommend known items too.
    """
    from ciess.cli.recommend import write_recommendations

    write_recommendations(table, user, users, out, k, include_seen, history)
