"""Which masks of a search stand for choice at a budget (Eq. 15), and which one validation chooses (Eq. 16)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ciess import masks
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.errors import BudgetError
from ciess.masks.mask import PrefixMask
from ciess.search.candidates import Candidate, best_searched, describe_equal, projected, select, sized_at, sparsest
from ciess.search.environment import Environment
from ciess.storage.columns import CHOSEN, EQUAL_WON, PROJECTED, RETRAINED, SEARCHED, SIZED_WON
from ciess.storage.storage import Storage, read_columns
from ciess.tables.results import Chosen
from ciess.tables.spec import TableSpec
from ciess.training.starts.start import Start

BY_RULE = {"equal": EQUAL_WON, "sized": SIZED_WON}
"""Origins of masks that no search has proposed, and what their table says where validation chose it."""


@dataclass(frozen=True, eq=False)
class Option:
    """A mask that stands for choice at a budget.

    Attributes:
        short_ratio: Eq. 16 of its short fit, None where there was none.
        start: where its training starts, None where that is still to be chosen.
    """

    mask: PrefixMask
    origin: str
    where: str
    short_ratio: float | None
    start: Start | None = None

    @property
    def key(self) -> str:
        """Tells masks and their starts apart."""
        return mask_key(self.mask, self.start)


@dataclass(frozen=True, eq=False)
class Judged:
    """What full training found of a mask.

    Attributes:
        ratio: Eq. 16.
        quality: mean of Eq. 8.
        chosen: None for an earlier run's.
        choice: mean of Eq. 8 on the half of validation that is chosen by, None where it is not cut.
    """

    ratio: float
    quality: float
    epochs: int
    chosen: Chosen | None = None
    choice: float | None = None

    @property
    def merit(self) -> float:
        """By what masks are chosen: quality on the half that is kept for it, or else the quality ratio (Eq. 16)."""
        return self.ratio if self.choice is None else self.choice


def mask_key(mask: PrefixMask, start: Start | None = None) -> str:
    """sha256 of the sizes, and of the start where there is one, shortened."""
    digest = hashlib.sha256(mask.sizes.tobytes())
    if start is not None:
        digest.update(json.dumps(start.described()).encode())
    return digest.hexdigest()[:16]


def options_for(
    sparsity: float,
    visited: list[Candidate],
    config: SearchConfig,
    settings: RetrainConfig,
    environment: Environment,
    where: str,
) -> list[Option]:
    """The masks that stand for choice at a budget: the best searched ones, then sizes by rule (Eq. 15).

    Args:
        sparsity: the budget, share of the table that is removed.
        visited: what the search of this config has tried.
        config: settings of the search.
        settings: what to retrain.
        environment: of the search.
        where: its run directory, for messages.

    Raises:
        BudgetError: no searched mask keeps the budget and none may be projected.
    """
    masks.budget(environment.n, config.max_size, sparsity, environment.bounds)
    best = best_searched(visited, config, sparsity, settings.candidates)
    found = [
        Option(candidate.mask, "search", candidate.where, candidate.quality_ratio, candidate.start)
        for candidate in best
    ]
    if not found:
        searched = [candidate for candidate in visited if candidate.origin == "search"]
        if not settings.project or not searched:
            raise _none_met(sparsity, searched, config, where)
        for candidate in select(searched, "0", settings.candidates or config.candidates, config.candidate_quality):
            mask = projected(candidate, sparsity, environment.degrees, environment.bounds)
            found.append(Option(mask, PROJECTED, f"{candidate.where}, projected", candidate.quality_ratio))
    if (sized := sized_at(visited, sparsity)) is not None:
        found.append(Option(sized.mask, "sized", sized.where, sized.quality_ratio, sized.start))
    if config.include_equal:
        fitted = {c.mask.sizes.tobytes(): c.quality_ratio for c in visited if c.origin == "equal"}
        for mask in masks.equals(config.max_size, sparsity, environment.degrees, environment.bounds):
            found.append(Option(mask, "equal", describe_equal(mask), fitted.get(mask.sizes.tobytes())))
    unique: dict[str, Option] = {}
    for option in found:
        unique.setdefault(option.key, option)
    return list(unique.values())


def mean_ratio(environment: Environment, user_quality: npt.NDArray[np.float32]) -> float:
    """Mean of Eq. 7 over users and items (Eq. 16).

    Args:
        environment: of the search.
        user_quality: Eq. 8 on validation, float32[n_users].
    """
    return float(environment.quality_ratio(environment.quality(user_quality)).mean(dtype="float64"))


def chosen_of(options: Sequence[Option], judged: Sequence[Judged]) -> tuple[int, int]:
    """Positions of the best mask (`Judged.merit`), and of the best one whose sizes are not by rule.

    Args:
        options: the masks, one of them or more of a search.
        judged: what full training found of each.

    Returns:
        the two positions; of equal ones the first.
    """
    ordered = sorted(range(len(options)), key=lambda position: -judged[position].merit)
    return ordered[0], next(position for position in ordered if options[position].origin not in BY_RULE)


@dataclass(frozen=True, eq=False)
class Decision:
    """What validation chose among the options of a budget (Eq. 16).

    Attributes:
        options: the masks that stood for choice.
        winner: position of the best one (`Judged.merit`); of equal ones the first.
        searched: position of the best one whose sizes are not by rule.
    """

    options: Sequence[Option]
    winner: int
    searched: int

    @property
    def rule_won(self) -> str | None:
        """The flag of sizes by rule that were chosen: the search is then reported beside them as it came out."""
        return BY_RULE.get(self.options[self.winner].origin)

    def tables(
        self, config: SearchConfig, search_id: str, sparsity: float, seed: int, variant: str = ""
    ) -> list[tuple[int, TableSpec]]:
        """The tables to train: the chosen one, and where sizes by rule won the best searched one beside it.

        Args:
            config: of the search.
            search_id: for the results.
            sparsity: the budget.
            seed: of the trainings.
            variant: tells searches of one sweep apart.

        Returns:
            positions among the options, and tables.
        """
        kept: list[tuple[int, str | None, str]] = [(self.winner, self.rule_won, CHOSEN)]
        kept += [(self.searched, None, SEARCHED)] if self.rule_won else []
        return [
            (position, searched_table(self.options[position], config, search_id, sparsity, seed, flag, variant, role))
            for position, flag, role in kept
        ]


def decide(run: Storage, sparsity: float, seed: int, options: Sequence[Option], judged: Sequence[Judged]) -> Decision:
    """Choose among the options of a budget, and write what stood for choice into retrained.parquet.

    Args:
        run: run directory of the search.
        sparsity: the budget.
        seed: of the trainings.
        options: the masks, one of them or more of a search.
        judged: what full training found of each.

    Returns:
        what was chosen.
    """
    winner, searched = chosen_of(options, judged)
    record_choice(run, sparsity, seed, options, judged, winner)
    return Decision(options, winner, searched)


def searched_table(
    option: Option,
    config: SearchConfig,
    search_id: str,
    sparsity: float,
    seed: int,
    flag: str | None = None,
    variant: str = "",
    role: str = CHOSEN,
) -> TableSpec:
    """The table to train for a mask that stood for choice in the search of this config."""
    flags = [text for text in (PROJECTED if option.origin == PROJECTED else None, flag) if text]
    return TableSpec(
        "ciess",
        option.mask,
        seed,
        masks.exact(sparsity),
        flag=", ".join(flags) or None,
        variant=variant,
        role=role,
        start=option.start,
        search={
            "search_id": search_id,
            "strategy": config.strategy,
            "halves": config.halves,
            "budget_mode": config.budget_mode,
            "memory_weight": config.memory_weight,
            "noise": config.noise,
            "random_walk": config.random_walk,
            "walk_weights": config.walk_weights if config.random_walk else None,
            "mask": option.where,
            "mask_sha256": option.key,
        },
    )


def recorded_choices(run: Storage) -> list[dict[str, Any]]:
    """Rows of retrained.parquet, none where there is no such file."""
    if not run.exists("retrained.parquet"):
        return []
    rows: list[dict[str, Any]] = read_columns(run, "retrained.parquet", RETRAINED).to_pylist()
    return rows


def record_choice(
    run: Storage, sparsity: float, seed: int, options: Sequence[Option], judged: Sequence[Judged], winner: int
) -> None:
    """Put a budget's rows into retrained.parquet, in the place of older ones of it."""
    rows = [
        {
            "target_sparsity": sparsity,
            "seed": seed,
            "origin": option.origin,
            "where": option.where,
            "sparsity": float(masks.sparsity(option.mask)),
            "short_quality_ratio": option.short_ratio,
            "quality_ratio": result.ratio,
            "quality": result.quality,
            "choice_quality": result.choice,
            "epochs": result.epochs,
            "selected": position == winner,
            "mask": option.key,
        }
        for position, (option, result) in enumerate(zip(options, judged, strict=True))
    ]
    before = [row for row in recorded_choices(run) if (row["target_sparsity"], row["seed"]) != (sparsity, seed)]
    run.write_table("retrained.parquet", pa.Table.from_pylist(before + rows, schema=RETRAINED))


def _none_met(sparsity: float, searched: list[Candidate], config: SearchConfig, where: str) -> BudgetError:
    if not searched:
        return BudgetError(
            f"{where} holds no mask of a search; one finished iteration or more was expected. Run `ciess search` "
            "with --resume first."
        )
    last = sparsest(searched)
    assert last is not None
    if last.sparsity >= sparsity:
        return BudgetError(
            f"No mask of this search serves a sparsity of {sparsity:g} alone: each that keeps it also keeps a larger "
            f"one of {', '.join(f'{budget:g}' for budget in config.budgets)}, and --candidate-buckets gives it to the "
            "largest. Expected one between the two. Retrain for the larger sparsity, or search without "
            "--candidate-buckets."
        )
    if config.sparsity:
        own = ", ".join(f"{budget:g}" for budget in config.sparsity)
        return BudgetError(
            f"No mask of this search keeps a sparsity of {sparsity:g}: it searched at {own}. Expected one of these. "
            f"Search with --sparsity {sparsity:g} for the other, or project the best mask to it with --project."
        )
    return BudgetError(
        f"No mask of this search keeps a sparsity of {sparsity:g}: the sparsest one visited has {last.sparsity:.4g} "
        f"({last.where}). Expected one at least as sparse. Search with a larger --memory-weight or more episodes, or "
        f"with --budget-mode target --targets {sparsity:g}; or project the best mask to the budget with --project."
    )
