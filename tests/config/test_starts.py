"""Starts, losses and sizes that a backbone does not take are refused before anything is read."""

from typing import Any

import pytest
from pydantic import ValidationError

from ciess.config.fit import FitConfig
from ciess.config.search import SearchConfig


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"backbone": "ngcf", "start": "projected"},
            "start projected is not for backbone ngcf, whose scores change when a table's axes are turned. Expected "
            "one of fresh, cut, spectral. Choose one of these",
        ),
        (
            {"backbone": "ncf", "min_size": 0},
            "min_size is 0, but a row of ncf without dimensions has no vector: nothing propagates to it; choose "
            "min_size 1 or more",
        ),
        ({"max_size": 8, "min_size": 9}, "min_size is 9, more than max_size 8; choose a smaller one"),
        (
            {"backbone": "ncf", "gentle": {"leave_one_out": True}},
            "gentle.leave_one_out is set, but ncf does not know what a pair's own standing in its user's history adds "
            "to a score; lightgcn and items do; leave it out, or choose one of these",
        ),
        (
            {"backbone": "ngcf", "training": {"leave_one_out": True}},
            "training.leave_one_out is set, but ngcf does not know what a pair's own standing",
        ),
    ],
)
def test_what_a_backbone_does_not_take_is_refused(settings: dict[str, Any], text: str) -> None:
    for config in (FitConfig, SearchConfig):
        with pytest.raises(ValidationError) as caught:
            config(**settings)
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "side"), [("ngcf", "both"), ("ncf", "both"), ("items", "both"), ("items", "users")]
)
def test_short_fits_in_closed_form_are_refused_where_there_are_none(backbone: str, side: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SearchConfig(backbone=backbone, short_fit={"start": "spectral", "side": side})
    assert (
        f"short fit start spectral with side {side} is for lightgcn, and with side items for items; found backbone "
        f"{backbone}; choose start fresh or reference"
    ) in str(caught.value)


def test_what_is_set_of_gentle_training_is_taken_as_it_is() -> None:
    tower = {"batch_size": 4096, "negatives": 1000, "max_epochs": 7, "evaluate_every": 3, "decay": 0.5}
    training = FitConfig(backbone="ncf", gentle=tower).gentle_training("softmax", 10**9, False)
    assert {name: getattr(training, name) for name in tower} == tower


def test_without_a_say_large_data_get_fewer_epochs() -> None:
    config = FitConfig()
    assert config.gentle_training("squared", 500_000, True).max_epochs == 60
    assert config.gentle_training("squared", 10_000_000, True).max_epochs == 2
    assert config.gentle_training("squared", 10**10, True).max_epochs == 1
