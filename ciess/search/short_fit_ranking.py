"""How well short fits rank masks: their rank correlation with full training, measured on MovieLens-1M with LightGCN."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from scipy import stats

from ciess.config.search import SearchConfig
from ciess.config.short_fit import ShortFitConfig

STARTED = "gentle training"
"""What stands as `setting` in closed_form_fits.csv for masks that were trained from a good start to the end."""

FULL = "full training"
"""What stands as `start` in the rows of masks that were trained until validation stopped to improve."""


@dataclass(frozen=True)
class Ranking:
    """Spearman's rank correlation of short fits with the fully trained validation quality over the same masks.

    Means over `seeds` seeds of the short fits.

    Attributes:
        by_ratio: of the mean quality ratio (Eq. 7), by which candidates are chosen.
        by_quality: of the mean of Eq. 8.
    """

    by_ratio: float
    by_quality: float
    masks: int
    seeds: int


@cache
def rows() -> tuple[dict[str, str], ...]:
    """short_fits.csv: a row a mask of 90 % sparsity, setting and seed."""
    text = resources.files("ciess.search").joinpath("short_fits.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@cache
def closed_form_rows() -> tuple[dict[str, str], ...]:
    """closed_form_fits.csv, as benchmarks/short_fits.py writes it: masks of LightGCN, MovieLens-1M, 90 % sparsity."""
    text = resources.files("ciess.search").joinpath("closed_form_fits.csv").read_text(encoding="utf-8")
    found = csv.DictReader(text.splitlines())
    measured = ("ml-1m", "lightgcn", "0.9")
    return tuple(row for row in found if (row["dataset"], row["backbone"], row["sparsity"]) == measured)


def fully_trained() -> dict[str, float]:
    """Validation quality (Eq. 8) of each mask, trained until validation stops to improve: the mean over its seeds."""
    found: dict[str, list[float]] = {}
    for row in rows():
        if row["start"] == FULL:
            found.setdefault(row["mask"], []).append(float(row["quality"]))
    return {mask: sum(values) / len(values) for mask, values in found.items()}


def ranking(config: SearchConfig) -> Ranking | None:
    """How well the short fit of this config ranked masks; None where it was not measured."""
    if config.backbone != "lightgcn" or config.short_fit.batches is not None:
        return None
    if config.short_fit.start in ("spectral", "projected"):
        return _closed_form_ranking(config)
    epochs, training = config.short_training(1)
    wanted = {
        "start": config.short_fit.start,
        "epochs": epochs,
        "learning_rate": training.learning_rate,
        "learning_rate_decay": training.learning_rate_decay,
        "batch_size": training.batch_size,
        "decay": training.decay,
        "shared_seed": config.short_fit.shared_seed,
    }
    full = fully_trained()
    by_seed: dict[str, list[dict[str, str]]] = {}
    for row in rows():
        same = row["start"] != FULL and all(
            row[name] == str(value) if isinstance(value, bool | str) else float(row[name]) == value
            for name, value in wanted.items()
        )
        if same and row["mask"] in full:
            by_seed.setdefault(row["seed"], []).append(row)
    # A seed that stopped half-way would rank other masks than the rest.
    by_seed = {seed: found for seed, found in by_seed.items() if len(found) == len(full)}
    if not by_seed:
        return None
    ratios, qualities = [], []
    for found in by_seed.values():
        truth = [full[row["mask"]] for row in found]
        ratios.append(_spearman([float(row["quality_ratio"]) for row in found], truth))
        qualities.append(_spearman([float(row["quality"]) for row in found], truth))
    seeds = len(by_seed)
    return Ranking(sum(ratios) / seeds, sum(qualities) / seeds, len(full), seeds)


def _closed_form_ranking(config: SearchConfig) -> Ranking | None:
    """Against masks that were trained from the same kind of start until validation stopped to improve."""
    short = config.short_fit
    plain = ShortFitConfig(start=short.start, side=short.side, epochs=short.epochs, preset=short.preset)
    if short != plain or config.short_training(1)[1] != SearchConfig(short_fit=plain).short_training(1)[1]:
        return None
    wanted = f"spectral {short.side} {short.epochs}" if short.start == "spectral" else f"projected {short.epochs}"
    full = {row["mask"]: float(row["quality"]) for row in closed_form_rows() if row["setting"] == STARTED}
    found = [row for row in closed_form_rows() if row["setting"] == wanted and row["mask"] in full]
    if not found or len(found) < len(full):
        return None
    truth = [full[row["mask"]] for row in found]
    by_ratio = _spearman([float(row["quality_ratio"]) for row in found], truth)
    by_quality = _spearman([float(row["quality"]) for row in found], truth)
    return Ranking(by_ratio, by_quality, len(full), 1)


def describe_ranking(config: SearchConfig) -> str:
    """What is known of the short fit of this config, in a sentence."""
    found = ranking(config)
    if found is None:
        return "how well this short fit ranks masks was not measured"
    return (
        f"on MovieLens-1M with LightGCN its quality ratios of {found.masks} masks correlated {found.by_ratio:.2f} in "
        f"rank with full training ({found.seeds} {'seed' if found.seeds == 1 else 'seeds'}); other data: not measured"
    )


def _spearman(first: list[float], second: list[float]) -> float:
    return float(stats.spearmanr(first, second).statistic)
