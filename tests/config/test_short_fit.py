from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ciess.config.recommender import TUNED, TrainingConfig
from ciess.config.search import SearchConfig
from ciess.config.short_fit import SHORT_FITS, ShortFitConfig

BACKBONES = ["lightgcn", "ngcf", "ncf", "items"]


def small(**changes: Any) -> SearchConfig:
    return SearchConfig(**{"episodes": 6, "iterations": 2} | changes)


class TestShortFit:
    @pytest.mark.parametrize("backbone", BACKBONES)
    @pytest.mark.parametrize("preset", ["default", "fast", "paper", "official"])
    def test_what_is_not_set_comes_from_the_preset_of_the_backbone(self, backbone: str, preset: str) -> None:
        short = small(backbone=backbone, short_fit={"preset": preset, "decay": 0.25}).short_fit
        expected = SHORT_FITS[backbone][preset]
        assert short == ShortFitConfig(preset=preset, decay=0.25, **expected)
        assert expected

    def test_presets_are_there_for_every_backbone(self) -> None:
        assert set(SHORT_FITS) == set(TUNED)

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_without_any_setting_it_is_the_default_preset(self, backbone: str) -> None:
        assert small(backbone=backbone).short_fit == ShortFitConfig(**SHORT_FITS[backbone]["default"])

    @pytest.mark.parametrize(
        ("backbone", "batches", "decay_batches", "floor"),
        [("lightgcn", 2000, 200, 1e-3), ("ngcf", 3000, 100, 1e-3), ("ncf", 1500, 50, 1e-4)],
    )
    def test_the_published_codes(self, backbone: str, batches: int, decay_batches: int, floor: float) -> None:
        short = small(backbone=backbone, short_fit={"preset": "official"}).short_fit
        assert (short.batches, short.decay_batches, short.learning_rate_floor) == (batches, decay_batches, floor)
        assert (short.learning_rate, short.learning_rate_decay, short.batch_size) == (0.03, 0.9, 10_000)

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_the_papers_is_5_epochs_of_the_settings_of_full_training(self, backbone: str) -> None:
        config = small(backbone=backbone, short_fit={"preset": "paper"})
        assert config.short_training(100) == (5, config.training)

    def test_what_is_given_wins_over_the_preset(self) -> None:
        given_settings = {"batches": 70, "learning_rate": 0.5, "learning_rate_decay": 0.75, "decay_batches": 7}
        short = small(short_fit={"preset": "official", **given_settings}).short_fit
        assert {name: getattr(short, name) for name in given_settings} == given_settings
        assert short.learning_rate_floor == 1e-3
        assert small(short_fit={"preset": "fast", "epochs": 9}).short_training(10)[0] == 9
        assert small(short_fit={"preset": "fast", "batches": 41}).short_training(10)[0] == 5
        assert small(short_fit={"preset": "fast"}).short_training(10)[0] == 0

    def test_epochs_that_are_given_win_over_the_batches_of_the_preset(self) -> None:
        config = small(short_fit={"preset": "official", "epochs": 7})
        assert config.short_fit.batches is None
        assert config.short_training(10)[0] == 7
        assert config.short_fit.learning_rate == 0.03

    def test_epochs_and_batches_cannot_both_be_given(self) -> None:
        with pytest.raises(ValidationError) as caught:
            small(short_fit={"epochs": 7, "batches": 41})
        assert (
            "both epochs 7 and batches 41 were given for the short fit; one of them was expected; set the other to None"
        ) in str(caught.value)

    def test_batches_that_are_given_win_over_the_epochs_of_the_preset(self) -> None:
        config = small(short_fit={"preset": "paper", "batches": 41})
        assert config.short_fit.epochs is None
        assert config.short_training(10)[0] == 5

    def test_a_preset_works_as_an_object_too(self) -> None:
        for settings in ({"preset": "official"}, {"preset": "official", "epochs": 7}, {"preset": "fast", "decay": 0.5}):
            for backbone in BACKBONES:
                expected = small(backbone=backbone, short_fit=settings)
                assert small(backbone=backbone, short_fit=ShortFitConfig(**settings)) == expected

    def test_decay_batches_without_a_decay_are_refused(self) -> None:
        with pytest.raises(ValidationError) as caught:
            small(short_fit={"decay_batches": 50})
        assert (
            "decay_batches 50 was given without learning_rate_decay, the factor that they stand for; give both, or "
            "leave decay_batches out"
        ) in str(caught.value)

    @given(st.integers(1, 5000), st.integers(1, 500))
    def test_batches_are_rounded_up_to_whole_epochs(self, batches: int, steps: int) -> None:
        epochs, _ = small(short_fit={"batches": batches}).short_training(steps)
        assert (epochs - 1) * steps < batches <= epochs * steps

    def test_what_is_none_is_as_in_full_training(self) -> None:
        training = {
            "learning_rate": 0.7,
            "learning_rate_decay": 0.6,
            "learning_rate_floor": 0.05,
            "batch_size": 321,
            "decay": 0.4,
            "sampling": "interaction",
            "max_epochs": 17,
        }
        config = small(training=training, short_fit={"preset": "paper"})
        assert config.short_training(10) == (5, TrainingConfig(**training))

    def test_what_is_set_takes_the_place_of_full_trainings(self) -> None:
        changed = {
            "learning_rate": 0.07,
            "learning_rate_decay": 0.61,
            "learning_rate_floor": 0.005,
            "batch_size": 32,
            "decay": 0.0,
        }
        config = small(training={"sampling": "interaction"}, short_fit={"preset": "paper", **changed})
        assert config.short_training(10)[1].model_dump() == config.training.model_dump() | changed
        closed_form = small(short_fit=changed)
        gentle = closed_form.gentle_training("squared", 0, True)
        assert closed_form.short_training(10)[1].model_dump() == gentle.model_dump() | changed

    @pytest.mark.parametrize(("steps", "power"), [(50, 0.25), (200, 1.0), (400, 2.0)])
    def test_decay_batches_spread_the_decay_over_epochs(self, steps: int, power: float) -> None:
        config = small(short_fit={"learning_rate_decay": 0.9, "decay_batches": 200})
        assert config.short_training(steps)[1].learning_rate_decay == pytest.approx(0.9**power)

    def test_a_decay_alone_is_that_of_an_epoch(self) -> None:
        config = small(short_fit={"learning_rate_decay": 0.9})
        assert config.short_training(50)[1].learning_rate_decay == 0.9

    def test_the_learning_rate_of_the_published_lightgcn_run(self) -> None:
        """MovieLens-1M has 51 steps an epoch: 0.9 ** (51 / 200) an epoch over 40 epochs, as 0.9 ** 10 in 2000 steps."""
        epochs, training = small(short_fit={"preset": "official"}).short_training(51)
        assert epochs == 40
        assert training.learning_rate * training.learning_rate_decay**epochs == pytest.approx(0.03 * 0.9**10.2)


def test_a_tower_takes_few_pairs_and_items_a_step() -> None:
    """A score of every pair and shared item goes through it: all training pairs at once would need gigabytes."""
    config = SearchConfig(backbone="ncf")
    assert config.losses == ("bpr",)
    for loss in ("squared", "softmax"):
        training = config.gentle_training(loss, 1_000_000, False)
        assert training.batch_size * training.negatives * 128 * 4 <= 64 * 2**20
