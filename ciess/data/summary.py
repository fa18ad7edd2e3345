"""The text of `ciess data PATH`: counts, beside the published ones where the data set is known."""

from __future__ import annotations

from ciess.data.interactions import Interactions
from ciess.data.published import KNOWN_SETS, KnownSet


def describe(data: Interactions) -> str:
    """Users, items, interactions, density, degrees of both sides, splits and notes as lines of text.

    For ML-1M, ML-100K and Yelp2018 the published counts follow, with the reason where ours differ.
    """
    counts = data.counts()
    total = counts["interactions"]
    lines = [
        f"{data.name} ({data.source})",
        f"  users         {counts['users']:>12,}",
        f"  items         {counts['items']:>12,}",
        f"  interactions  {total:>12,}",
        f"  density       {counts['density']:>12.4%}",
        "                         min       mean        max",
    ]
    for label, key in (("user degree", "user_degree"), ("item degree", "item_degree")):
        spread = counts[key]
        lines.append(f"  {label:<15} {spread['min']:>11,} {spread['mean']:>10,.1f} {spread['max']:>10,}")
    lines += [
        f"  {split:<13} {counts[split]:>12,}  {counts[split] / total:>6.1%}" for split in ("train", "valid", "test")
    ]
    origin = "as the input gives it" if data.split_seed is None else f"random per user, split_seed={data.split_seed}"
    lines.append(f"  split         {origin}")
    lines.append(f"  sha256        {data.sha256}")
    lines += [f"  note: {note}" for note in data.notes]
    if data.name in KNOWN_SETS:
        lines += _beside_published(KNOWN_SETS[data.name], counts["users"], counts["items"], total)
    return "\n".join(lines)


def _beside_published(known: KnownSet, users: int, items: int, interactions: int) -> list[str]:
    ours = (users, items, interactions)
    lines = [f"{known.title:<22} {'users':>10} {'items':>10} {'interactions':>14}"]
    lines.append(f"  {'here':<20} {users:>10,} {items:>10,} {interactions:>14,}")
    reasons = []
    for counts in known.published:
        theirs = (counts.users, counts.items, counts.interactions)
        lines.append(f"  {counts.by:<20} {counts.users:>10,} {counts.items:>10,} {counts.interactions:>14,}")
        if theirs != ours and counts.reason:
            reasons.append(f"  {counts.by} differs: {counts.reason}.")
    raw = (known.raw.users, known.raw.items, known.raw.interactions)
    if ours != raw:
        reasons.append(
            f"  The released files hold {raw[0]:,} users, {raw[1]:,} items and {raw[2]:,} interactions; "
            "the notes above say what reading left out."
        )
    return lines + reasons
