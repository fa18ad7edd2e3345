"""A search at given sparsities: what they set, and what does not go with them."""

import pytest
from pydantic import ValidationError

from ciess.config.kinds import KindsConfig
from ciess.config.search import SearchConfig


def test_a_sparsity_sets_target_halves_strategy_and_generations() -> None:
    config = SearchConfig(sparsity=(0.9, 0.95))
    assert (config.strategy, config.budget_mode, config.targets) == ("kinds", "target", (0.9, 0.95))
    assert (config.halves, config.candidate_quality, config.candidates) == (True, "choice", 8)
    # 25 generations of 12 for each of two budgets.
    assert (config.fits, config.lanes, config.iterations, config.episodes) == (300, 12, 1, 600)


def test_what_is_said_goes_first() -> None:
    config = SearchConfig(sparsity=(0.9,), fits=50, candidates=3, kinds=KindsConfig(population=7), halves=False)
    assert (config.episodes, config.lanes, config.candidates) == (56, 7, 3)
    assert (config.halves, config.candidate_quality) == (False, "all")
    agents = SearchConfig(sparsity=(0.9,), strategy="td3", iterations=5, lanes=2, fits=100)
    assert (agents.episodes, agents.memory_weight) == (20, 0.001)


@pytest.mark.parametrize("values", [{"sparsity": (0.95,)}, {"sparsity": (0.9,), "strategy": "td3"}, {}])
def test_settings_come_back_from_json_as_they_were(values: dict[str, object]) -> None:
    config = SearchConfig(**values)
    assert SearchConfig.model_validate(config.model_dump(mode="json")) == config


def test_without_a_sparsity_the_search_is_the_one_that_it_was() -> None:
    config = SearchConfig()
    assert (config.strategy, config.budget_mode, config.halves, config.candidates) == ("td3", "penalty", False, 3)


def test_the_paper_s_preset_looks_out_for_the_budgets() -> None:
    config = SearchConfig(sparsity=(0.9,), preset="paper")
    assert (config.strategy, config.budget_mode, config.sparsities, config.memory_weight) == (
        *("td3", "penalty"),
        (0.9,),
        0.4,
    )


@pytest.mark.parametrize("backbone", ["ngcf", "ncf"])
def test_other_backbones_judge_masks_untrained_too(backbone: str) -> None:
    config = SearchConfig(sparsity=(0.9,), backbone=backbone)
    assert (config.short_fit.start, config.short_fit.epochs) == ("spectral", 0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"sparsity": (0.95,), "memory_weight": 0.4},
            "found memory weight 0.4 beside sparsity 0.95: a price is for a search without a budget; leave one of "
            "--memory-weight and --sparsity out",
        ),
        (
            {"sparsity": (0.95,), "targets": (0.9,)},
            "sparsity 0.95 is a budget for every fit, but found budget mode target with targets 0.9; give one of the "
            "two",
        ),
        (
            {"strategy": "kinds"},
            "strategy kinds searches at budgets, but found no sparsity; give --sparsity, such as 0.95",
        ),
        (
            {"fits": 30},
            "found fits 30 without a sparsity; expected --episodes and --iterations there; give --sparsity, or leave "
            "--fits out",
        ),
        (
            {"sparsity": (0.95,), "noise": "ou", "walk_length": 3},
            "found options of strategy td3, but strategy kinds: --noise, --walk-length; leave them out",
        ),
        (
            {"sparsity": (0.95,), "strategy": "td3", "kinds": {"population": 5}},
            "found options of strategy kinds or random, but strategy td3: --kinds; leave them out",
        ),
        (
            {"sparsity": (0.95,), "lanes": 3},
            "found 3 lanes of 1 iterations with strategy kinds, whose rounds are generations; give --kinds.population "
            "and --fits instead",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        SearchConfig(**values)
    assert [error["msg"] for error in raised.value.errors()] == [f"Value error, {words}"]
