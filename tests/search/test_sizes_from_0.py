"""Searches over rows that may have no dimension, and over one side alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess import masks
from ciess.agent.exploration import random_walk
from ciess.agent.networks import actions_to_sizes, sizes_to_actions, whole_sizes
from ciess.config.search import SearchConfig
from ciess.data.planted import Planted
from ciess.runs.search import run_search
from ciess.search import short_fit as module
from ciess.search.proposals import Proposal
from ciess.search.reference import environment_of, train_reference
from ciess.search.short_fit import short_fit, short_fits, stack
from ciess.storage.storage import Storage


def config(backbone: str = "lightgcn", **changes: Any) -> SearchConfig:
    plain: dict[str, Any] = {
        "backbone": backbone,
        "max_size": 16,
        "episodes": 2,
        "iterations": 3,
        "lanes": 2,
        "sparsities": (0.8,),
        "device": "cpu",
        "threads": 1,
        "gentle": {"max_epochs": 3},
        "agent": {"hidden": 16, "batch_size": 64},
    }
    return SearchConfig(**plain | changes)


@pytest.mark.parametrize(("low", "high"), [(0, 16), (0, 0), (1, 16), (3, 3)])
def test_actions_cover_the_sizes_of_a_side(low: int, high: int) -> None:
    sizes = np.arange(low, high + 1)
    actions = sizes_to_actions(sizes, high, low)
    assert actions.min() == -1 and (actions.max() == 1 or low == high)
    if low < high:
        np.testing.assert_allclose(actions_to_sizes(actions, high, low), sizes, atol=1e-5)
    assert set(whole_sizes(actions_to_sizes(np.array([-1.0, 1.0]), high, low), high, low).tolist()) == {low, high}


@pytest.mark.parametrize(("low", "high"), [(0, 16), (0, 0), (0, 1), (2, 5)])
def test_a_walk_stays_within_the_sizes_and_meets_the_smallest(low: int, high: int) -> None:
    generator = np.random.default_rng(0)
    starts = generator.integers(low, high + 1, 500).astype(np.int16)
    met = random_walk(starts, 5, 5, "distance", high, generator, low)
    assert met.min() == low and met.max() == high
    if low < high:
        assert (np.diff(met, axis=1) != 0).all()


@pytest.mark.parametrize("backbone", ["lightgcn", "items"])
@pytest.mark.parametrize("mode", ["penalty", "target"])
def test_a_search_proposes_sizes_within_bounds(planted: Planted, tmp_path: Path, backbone: str, mode: str) -> None:
    budgets = {"targets": (0.8,), "budget_mode": "target"} if mode == "target" else {}
    settings = config(backbone, **budgets)
    search = run_search(planted.data, settings, str(tmp_path / "run"))
    bounds = masks.size_bounds(settings, planted.data.n_users, planted.data.n_items)
    searched = [candidate for candidate in search.visited if candidate.origin == "search"]
    assert len(searched) == 6
    for candidate in searched:
        assert (candidate.mask.sizes >= bounds.low).all() and (candidate.mask.sizes <= bounds.high).all()
        if mode == "target":
            assert masks.sparsity(candidate.mask) >= masks.exact(0.8)
    if backbone == "lightgcn":
        assert min(candidate.mask.sizes.min() for candidate in searched) == 0
    rows = search.rows
    assert all((row["users_critic_loss"] is None) == (backbone == "items") for row in rows)
    assert all(row["items_critic_loss"] is not None for row in rows)


def test_a_side_without_a_choice_is_not_learned_from(planted: Planted, tmp_path: Path) -> None:
    settings = config("items")
    reference = train_reference(planted.data, settings.started(), 0, Storage(tmp_path))
    environment = environment_of(planted.data, settings, reference)
    assert environment.sizes_of("users") == (0, 0) and environment.sizes_of("items") == (1, 16)
    assert not environment.learnable[: planted.data.n_users].any()
    state = environment.state(slice(0, 3), np.zeros(3, np.int16), np.ones(3, np.float32))
    assert np.isfinite(state).all()


@pytest.mark.parametrize("start", ["spectral", "projected"])
def test_proposals_side_by_side_have_the_bits_of_each_alone(
    planted: Planted, tmp_path: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = planted.data, config(short_fit={"start": start, "epochs": 0})
    reference = train_reference(data, settings.started(), 0, Storage(tmp_path))
    generator = np.random.default_rng(0)
    proposals = [Proposal(0, 1, k, generator.integers(0, 17, data.n).astype(np.int16)) for k in range(1, 4)]
    proposals.append(Proposal(0, 1, 4, np.repeat([0, 5], [data.n_users, data.n_items]).astype(np.int16)))
    assert stack(settings, proposals) and not stack(settings, proposals[:1])
    solved = []

    def spy(*arguments: Any) -> Any:
        solved.append(stacked(*arguments))
        return solved[-1]

    stacked = module.stacked_weights
    monkeypatch.setattr(module, "stacked_weights", spy)
    together = list(short_fits(data, settings, proposals, reference.weights))
    alone = [short_fit(data, settings, proposal, reference.weights) for proposal in proposals]
    assert len(solved) == 1 and len(solved[0]) == 4
    for first, second in zip(together, alone, strict=True):
        assert first.slot == second.slot
        assert first.quality.tobytes() == second.quality.tobytes()
    assert all(torch.isfinite(weights["table"]).all() for weights in solved[0])


def test_the_papers_preset_is_algorithm_1_to_the_letter() -> None:
    paper = SearchConfig(preset="paper")
    assert (paper.min_size, paper.start, paper.short_fit.preset, paper.short_fit.start) == (
        1,
        "fresh",
        "paper",
        "fresh",
    )
    assert paper.short_training(10)[0] == 5
    assert SearchConfig().min_size == 0
    assert SearchConfig(preset="paper", min_size=0).min_size == 0
