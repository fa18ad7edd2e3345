"""Successive halving of masks that stand for choice."""

from typing import Any

import numpy as np
import pytest

from ciess.config.fit import FitConfig
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.config.starts import GentleConfig
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask
from ciess.retraining.choice import Judged, Option
from ciess.retraining.halving import judged_by_halving
from ciess.retraining.retraining import Retraining
from ciess.runs.retrain import retrain_run
from ciess.runs.search import run_search
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


def test_a_mask_that_one_budget_gave_up_is_judged_anew_by_another(
    planted: Planted, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks of 75 % keep 50 %, too, and what a quarter of their epochs has found there is not what they are worth."""
    gentle = {"max_epochs": 8, "evaluate_every": 2, "learning_rate": 0.02}
    shared: dict[str, Any] = {"backbone": "items", "max_size": 8, "threads": 1, "device": "cpu", "gentle": gentle}
    config = SearchConfig(sparsity=(0.75, 0.5), fits=4, candidates=16, kinds={"population": 4}, **shared)
    run_search(planted.data, config, str(tmp_path))
    judged: dict[tuple[float, str], list[float]] = {}
    method = Retraining._judge

    def spy(self: Retraining, option: Option, sparsity: float, seed: int, share: float) -> Judged:
        judged.setdefault((sparsity, option.key), []).append(share)
        return method(self, option, sparsity, seed, share)

    monkeypatch.setattr(Retraining, "_judge", spy)
    retrain_run(str(tmp_path), RetrainConfig(sparsity=(0.75, 0.5), compare=()), planted.data)
    given_up = {key for (sparsity, key), shares in judged.items() if sparsity == 0.75 and 1.0 not in shares}
    rows = Storage(str(tmp_path)).read_table("retrained.parquet").to_pylist()
    at_both = given_up & {row["mask"] for row in rows if row["target_sparsity"] == 0.5}
    assert at_both
    assert at_both <= {key for sparsity, key in judged if sparsity == 0.5}
    # A second run knows every mask of its budgets, and trains none.
    judged.clear()
    retrain_run(str(tmp_path), RetrainConfig(sparsity=(0.75, 0.5), compare=()), planted.data)
    assert judged == {}
    assert Storage(str(tmp_path)).read_table("retrained.parquet").to_pylist() == rows
