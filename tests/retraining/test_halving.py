"""Successive halving of masks that stand for choice."""

from typing import Any

import numpy as np
import pytest

from ciess.config.fit import FitConfig
from ciess.config.starts import GentleConfig
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask
from ciess.retraining.choice import Judged, Option
from ciess.retraining.halving import judged_by_halving
from ciess.storage.storage import Storage
from ciess.tables.protocol import train_and_choose
from ciess.tables.spec import TableSpec


def option(place: int, origin: str = "search") -> Option:
    return Option(PrefixMask(np.array([place, 1], np.int16), 16), origin, f"mask {place}", None)


def test_half_go_on_after_a_quarter_and_half_of_these_after_half_and_rules_to_the_end() -> None:
    options = [option(place) for place in range(5)] + [option(7, "sized"), option(8, "equal")]
    worth = {one.key: place for place, one in enumerate(options)}
    calls: list[tuple[int, float]] = []

    def judge(one: Option, share: float) -> Judged:
        calls.append((worth[one.key], share))
        return Judged(0.5, 0.5, int(100 * share), choice=worth[one.key] * share)

    found = judged_by_halving(options, judge)
    assert [place for place, share in calls if share == 0.25] == [0, 1, 2, 3, 4]
    assert [place for place, share in calls if share == 0.5] == [2, 3, 4]
    assert [place for place, share in calls if share == 1.0] == [3, 4, 5, 6]
    assert [judged.epochs for judged in found] == [25, 25, 50, 100, 100, 100, 100]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_best_searched_one_was_trained_to_the_end(count: int) -> None:
    generator = np.random.default_rng(count)
    options = [option(place) for place in range(count)] + [option(12, "sized")]
    # Merits that never fall, as those of best epochs so far.
    merits = {one.key: np.maximum.accumulate(generator.random(3)) for one in options}

    def judge(one: Option, share: float) -> Judged:
        step = (0.25, 0.5, 1.0).index(share)
        return Judged(0.5, 0.5, step, choice=float(merits[one.key][step]))

    found = judged_by_halving(options, judge)
    best = max(range(count), key=lambda place: found[place].merit)
    assert found[best].epochs == 2


def test_a_mask_that_ties_gives_way_to_the_one_before() -> None:
    options = [option(place) for place in range(4)]
    found = judged_by_halving(options, lambda one, share: Judged(0.5, 0.5, int(100 * share), choice=0.5))
    assert [judged.epochs for judged in found] == [100, 50, 25, 25]


def test_a_paused_training_goes_on_to_where_an_undisturbed_one_ends(planted: Planted, tmp_path: Any) -> None:
    data = planted.data
    gentle = GentleConfig(max_epochs=12, evaluate_every=2, learning_rate=0.02)
    config = FitConfig(backbone="items", max_size=8, threads=1, device="cpu", gentle=gentle)
    mask = PrefixMask(np.repeat(np.array([0, 4], np.int16), [data.n_users, data.n_items]), 8)
    spec = TableSpec("mask", mask, 0)
    whole = train_and_choose(data, spec, config, Storage(str(tmp_path / "whole")), by_half=True)
    parts = Storage(str(tmp_path / "parts"))
    paused = [train_and_choose(data, spec, config, parts, by_half=True, share=share) for share in (0.25, 0.5, 1.0)]
    assert [found.history[-1].epoch for found in paused] == [4, 6, whole.history[-1].epoch]
    assert paused[-1].history == whole.history and paused[-1].epoch == whole.epoch
    assert paused[-1].result is not None and whole.result is not None
    np.testing.assert_array_equal(paused[-1].result.table, whole.result.table)
    assert paused[0].choice == max(record.quality for record in whole.history if record.quality and record.epoch <= 4)
    # Asked again for less than it has done, it says what it had then.
    again = train_and_choose(data, spec, config, parts, by_half=True, share=0.25)
    assert again.choice == paused[0].choice
