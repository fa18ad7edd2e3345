"""Counts of the data sets of the paper and of ML-100K as published, and why ours may differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Users, items and interactions of a data set according to one source."""

    by: str
    users: int
    items: int
    interactions: int
    reason: str = ""


@dataclass(frozen=True)
class KnownSet:
    """A known data set.

    Attributes:
        name: as in tables of results.
        title: full name.
        raw: what the released files hold: ids with an interaction, and rows.
        published: counts in print; each reason says why ours differ.
    """

    name: str
    title: str
    raw: Counts
    published: tuple[Counts, ...]


KNOWN_SETS = {
    known.name: known
    for known in (
        KnownSet(
            "ml-1m",
            "MovieLens-1M",
            Counts("release files", 6_040, 3_706, 1_000_209),
            (
                Counts(
                    "paper 3.2",
                    6_040,
                    3_952,
                    1_000_208,
                    "3,952 is the largest movie id, and 3,706 movies have a rating; one interaction is missing because "
                    "the published loader takes the first row for a header (drop_first_row=True does the same)",
                ),
                Counts(
                    "release README",
                    6_040,
                    3_900,
                    1_000_209,
                    "the README says approximately 3,900 movies; only the 3,706 with a rating have a row here",
                ),
            ),
        ),
        KnownSet(
            "yelp2018",
            "Yelp2018",
            Counts("release files", 31_668, 38_048, 1_561_406),
            (
                Counts(
                    "paper 3.2",
                    31_668,
                    38_048,
                    1_561_147,
                    "the released train and test parts hold 1,237,259 and 324,147 pairs, none twice, so 1,561,406; "
                    "why the paper has 259 fewer is unknown",
                ),
                Counts("LightGCN release", 31_668, 38_048, 1_561_406),
            ),
        ),
        KnownSet(
            "ml-100k",
            "MovieLens-100K",
            Counts("release files", 943, 1_682, 100_000),
            (Counts("release README", 943, 1_682, 100_000),),
        ),
    )
}


def recognise(users: int, items: int, rows: int) -> str | None:
    """Name of the known data set whose released files have these counts, else None."""
    for known in KNOWN_SETS.values():
        if (known.raw.users, known.raw.items, known.raw.interactions) == (users, items, rows):
            return known.name
    return None
