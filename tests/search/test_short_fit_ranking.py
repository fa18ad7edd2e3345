import numpy as np
import pytest

from ciess.config.search import SearchConfig
from ciess.search.short_fit_ranking import (
    FULL,
    STARTED,
    closed_form_rows,
    describe_ranking,
    fully_trained,
    ranking,
    rows,
)


def config(**short_fit: object) -> SearchConfig:
    return SearchConfig.model_validate({"threads": 1, "short_fit": short_fit})


def by_rank(values: list[float]) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


@pytest.mark.parametrize("preset", ["default", "fast"])
def test_closed_forms_are_held_against_training_from_such_a_start(preset: str) -> None:
    settings = config(preset=preset)
    assert (settings.short_fit.start, settings.short_fit.epochs) == ("spectral", 0)
    by_setting = {(row["setting"], row["mask"]): row for row in closed_form_rows()}
    names = sorted({mask for setting, mask in by_setting if setting == STARTED})
    short = by_rank([float(by_setting["spectral both 0", name]["quality_ratio"]) for name in names])
    truth = by_rank([float(by_setting[STARTED, name]["quality"]) for name in names])
    result = ranking(settings)
    assert result is not None
    assert result.by_ratio == pytest.approx(np.corrcoef(short, truth)[0, 1], abs=0.02)
    assert result.masks == len(names) >= 8
    assert f"of {result.masks} masks correlated {result.by_ratio:.2f} in rank" in describe_ranking(settings)


@pytest.mark.parametrize("preset", ["paper"])
def test_the_correlation_is_that_of_the_rows_of_the_preset(preset: str) -> None:
    settings = config(preset=preset)
    epochs, training = settings.short_training(50)
    full = fully_trained()
    found = [
        row
        for row in rows()
        if row["start"] == settings.short_fit.start
        and int(row["epochs"]) == epochs
        and float(row["learning_rate"]) == training.learning_rate
        and float(row["learning_rate_decay"]) == training.learning_rate_decay
        and float(row["batch_size"]) == training.batch_size
        and float(row["decay"]) == training.decay
        and row["shared_seed"] == "True"
        and row["mask"] in full
    ]
    seeds = sorted({row["seed"] for row in found})
    seeds = [seed for seed in seeds if sum(row["seed"] == seed for row in found) == len(full)]
    assert seeds
    expected = []
    for seed in seeds:
        rows_of_seed = [row for row in found if row["seed"] == seed]
        assert len({row["mask"] for row in rows_of_seed}) == len(rows_of_seed)
        ratios = by_rank([float(row["quality_ratio"]) for row in rows_of_seed])
        truth = by_rank([full[row["mask"]] for row in rows_of_seed])
        expected.append(np.corrcoef(ratios, truth)[0, 1])
    result = ranking(settings)
    assert result is not None
    assert result.by_ratio == pytest.approx(np.mean(expected), abs=0.02)  # ties share a rank
    assert result.masks >= 10
    text = describe_ranking(settings)
    assert f"of {result.masks} masks correlated {result.by_ratio:.2f} in rank with full training" in text
    assert text.endswith("other data: not measured")


def test_the_default_ranks_masks_no_worse_than_the_papers_and_the_fast_one() -> None:
    found = {preset: ranking(config(preset=preset)) for preset in ("default", "fast", "paper")}
    ratios = {preset: result.by_ratio for preset, result in found.items() if result is not None}
    assert ratios["default"] >= max(ratios["fast"], ratios["paper"])


@pytest.mark.parametrize("short_fit", [{"preset": "official"}, {"epochs": 7}, {"decay": 0.5}])
def test_what_was_not_measured_is_said(short_fit: dict[str, object]) -> None:
    assert ranking(config(**short_fit)) is None
    assert describe_ranking(config(**short_fit)) == "how well this short fit ranks masks was not measured"


def test_other_backbones_were_not_measured() -> None:
    assert ranking(SearchConfig.model_validate({"backbone": "ncf"})) is None


def test_a_mask_with_seeds_counts_by_its_mean() -> None:
    values = [float(row["quality"]) for row in rows() if row["start"] == FULL and row["mask"] == "equal 12"]
    assert fully_trained()["equal 12"] == pytest.approx(np.mean(values))
