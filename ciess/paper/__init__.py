"""The paper's Tables 1 and 2 as printed, to stand beside our own numbers."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

_DATASETS = {"MovieLens-1M": "ml-1m", "Yelp2018": "yelp2018"}
_METHODS = {"ES": "equal", "MR": "mixed", "CIESS": "ciess", "PEP": "pep", "ESAPN": "esapn", "OptEmbed": "optembed"}
_NOISES = {"": None, "G": "gaussian", "OU": "ou", "U": "uniform"}
_WALKS = {"": None, "yes": True, "no": False}


@dataclass(frozen=True)
class Cell:
    """A number of Table 1 or 2, in our names.

    Attributes:
        table: 1 or 2.
        dataset: `ml-1m` or `yelp2018`.
        backbone: `lightgcn`, `ngcf` or `ncf`.
        method: `equal`, `mixed`, `ciess`, `pep`, `esapn` or `optembed`.
        target_sparsity: share to remove; None for ESAPN and OptEmbed, which choose their own.
        reported_sparsity: the printed share removed.
        metric: `Recall` or `NDCG`.
        k: the cutoff.
        value: as printed.
        noise: of Table 2 alone, else None.
        random_walk: of Table 2 alone, else None.
    """

    table: int
    dataset: str
    backbone: str
    method: str
    target_sparsity: float | None
    reported_sparsity: float
    metric: str
    k: int
    value: float
    noise: str | None
    random_walk: bool | None


@cache
def cells() -> tuple[Cell, ...]:
    """Every number of Tables 1 and 2, in the order of print."""
    text = resources.files(__name__).joinpath("tables.csv").read_text(encoding="utf-8")
    return tuple(_cell(row) for row in csv.DictReader(text.splitlines()))


def published(
    dataset: str,
    backbone: str,
    method: str,
    target_sparsity: float | None,
    metric: str,
    k: int,
    *,
    noise: str | None = None,
    random_walk: bool | None = None,
) -> float | None:
    """The paper's value for a setting in our names.

    Gaussian noise with random walk is the setting of Table 1 and taken from there; any other noise or walk, given
    together, is looked up in Table 2.

    Args:
        dataset: as in `Cell`.
        backbone: as in `Cell`.
        method: as in `Cell`.
        target_sparsity: share removed; None for ESAPN and OptEmbed.
        metric: Recall or NDCG.
        k: the cutoff.
        noise: of a search.
        random_walk: of a search.

    Returns:
        the value, None where the paper has none.
    """
    if (noise, random_walk) in {(None, None), ("gaussian", True)}:
        noise, random_walk = None, None
    target = None if target_sparsity is None else round(target_sparsity, 6)
    return _lookup().get((dataset, backbone, method, target, metric, k, noise, random_walk))


@cache
def _lookup() -> dict[tuple[object, ...], float]:
    return {
        (
            cell.dataset,
            cell.backbone,
            cell.method,
            cell.target_sparsity,
            cell.metric,
            cell.k,
            cell.noise,
            cell.random_walk,
        ): cell.value
        for cell in cells()
    }


def _cell(row: dict[str, str]) -> Cell:
    metric, k = row["metric"].split("@")
    return Cell(
        table=int(row["table"]),
        dataset=_DATASETS[row["dataset"]],
        backbone=row["backbone"].lower(),
        method=_METHODS[row["method"]],
        target_sparsity=float(row["target_sparsity"]) if row["target_sparsity"] else None,
        reported_sparsity=float(row["reported_sparsity"]),
        metric=metric,
        k=int(k),
        value=float(row["value"]),
        noise=_NOISES[row["noise"]],
        random_walk=_WALKS[row["random_walk"]],
    )
