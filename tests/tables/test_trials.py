"""The trainings among which validation chooses: which are tried, and that the best one wins and is refit alike."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ciess import load, masks
from ciess.config import starts
from ciess.config.fit import FitConfig
from ciess.config.recommender import TrainingConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.storage.storage import Storage
from ciess.tables import protocol, trials
from ciess.tables.protocol import train_and_choose, train_table
from ciess.tables.spec import TableSpec
from ciess.tables.trials import Trial, finalists, trials_of
from ciess.training.starts.start import Start


@pytest.fixture
def data(planted: Planted) -> Interactions:
    return planted.data


def settings(backbone: str = "lightgcn", **changes: Any) -> FitConfig:
    gentle = {"max_epochs": 6, "evaluate_every": 2, "batch_size": 1000}
    plain = {"max_size": 16, "threads": 1, "device": "cpu", "gentle": gentle}
    if backbone == "ncf":
        plain["model"] = {"hidden": (16, 8)}
    return FitConfig(backbone=backbone, **{**plain, **changes})


def spec_of(data: Interactions, **changes: Any) -> TableSpec:
    return TableSpec("equal", masks.equal(data.n, 16, 0.75), 0, Fraction(3, 4), **changes)


def drawn_reference(data: Interactions) -> Any:
    weights = {"table": torch.randn(data.n, 1, 16, generator=torch.Generator().manual_seed(0))}
    return lambda _: weights


def names(trials: list[Trial]) -> list[str]:
    return [trial.name for trial in trials]


def test_what_is_tried_by_start_and_loss(data: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(data)
    both = ["spectral-squared-leave-one-out", "spectral-squared"]
    softmax = "spectral-softmax-leave-one-out"
    assert names(trials_of(data, spec, settings())) == [*both, softmax]
    near = spec_of(data, start=Start("spectral", "items", 0.4, 0.25, 0.3))
    assert names(trials_of(data, near, settings("items"))) == [both[0], softmax]
    assert names(trials_of(data, spec, settings(loss="squared"))) == both
    monkeypatch.setattr(starts, "SOFTMAX_PAIRS", len(data.train) - 1)
    assert names(trials_of(data, spec, settings())) == both
    assert names(trials_of(data, spec, settings(start="fresh"))) == ["fresh-bpr"]
    assert names(trials_of(data, spec, settings(loss="softmax", gentle={"leave_one_out": False}))) == [
        "spectral-softmax"
    ]
    assert names(trials_of(data, spec, settings("ngcf"))) == ["spectral-squared", "spectral-bpr"]
    assert names(trials_of(data, near, settings("items"))) == both[:1]
    assert names(trials_of(data, spec, settings(start="cut"))) == ["cut-squared-leave-one-out", "cut-squared"]


ITEMS_START = Start("spectral", "items", 0.4, 0.25, -0.2)


def test_items_are_trained_from_the_exponent_that_training_makes_most_of_too(
    data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("items")
    name, softmax = "spectral-squared-leave-one-out", "spectral-softmax-leave-one-out"
    found = trials_of(data, spec_of(data, start=ITEMS_START), config)
    assert names(found) == [name, f"{name}-a0.3", softmax]
    assert [trial.start.item_exponent for trial in found if trial.start is not None] == [-0.2, 0.3, -0.2]
    assert found[1].start == replace(ITEMS_START, item_exponent=0.3)
    assert found[0].kind == found[1].kind != found[2].kind
    near = replace(ITEMS_START, item_exponent=0.27)
    assert names(trials_of(data, spec_of(data, start=near), config)) == [name, softmax]
    monkeypatch.setattr(trials, "WHOLE_PAIRS", len(data.train) - 1)
    assert names(trials_of(data, spec_of(data, start=ITEMS_START), config)) == [name, softmax]


@pytest.mark.parametrize("backbone", ["lightgcn", "items"])
def test_where_pairs_are_few_a_reference_is_projected_for_softmax(
    data: Interactions, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(backbone)
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    reference = drawn_reference(data)
    spec = TableSpec("equal", masks.equal(data.n, 16, 0.75, bounds=bounds), 0, Fraction(3, 4))
    projected = "projected-softmax-leave-one-out"
    assert names(trials_of(data, spec, config, reference))[-1] == projected
    # The full table is the reference, or as good a one.
    full = TableSpec("full", masks.full(data.n, 16, bounds), 0)
    squared, spectral = settings(backbone, loss="squared"), settings(backbone, start="spectral")
    for other, changed in ((full, config), (spec, squared), (spec, spectral)):
        assert projected not in names(trials_of(data, other, changed, reference))
    monkeypatch.setattr(starts, "SOFTMAX_PAIRS", len(data.train) - 1)
    assert projected not in names(trials_of(data, spec, config, reference))


def test_the_best_of_a_kind_goes_on_and_what_rises_where_it_has_stopped() -> None:
    first, second, third = (Trial(Start("spectral"), TrainingConfig(), variant=name) for name in "abc")
    rivals, up = [first, second, third], [True] * 3
    assert finalists(rivals, [0.1, 0.2, 0.1], up) == [second]
    assert finalists(rivals, [0.2, 0.2, 0.1], up) == [first]
    # What still rises may pass it, and costs nothing more.
    assert finalists(rivals, [0.3, 0.1, 0.2], [False, True, True]) == [first, third]
    assert finalists(rivals, [0.3, 0.1, 0.2], [False, True, False]) == [first, second]
    assert finalists(rivals, [0.3, 0.1, 0.2], [False] * 3) == [first]


def test_of_trainings_that_differ_in_numbers_of_their_start_the_better_one_goes_on(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is trained for a quarter of its epochs, here the first two of six; the better one then to its end."""
    config, seen = settings("items", loss="squared"), []

    def spy(trained_on: Interactions, request: Any) -> Any:
        found = fit(trained_on, request)
        seen.append((request.until, request.initial["item_weight"].clone(), found))
        return found

    fit = protocol.fit
    monkeypatch.setattr(protocol, "fit", spy)
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    mask = masks.equal(data.n, 16, 0.75, bounds=bounds)
    spec = TableSpec("equal", mask, 0, Fraction(3, 4), start=ITEMS_START)
    chosen = train_and_choose(data, spec, config, Storage(tmp_path))
    assert [until for until, _, _ in seen] == [2, 2, None]
    early = [max(record.quality or 0 for record in found.history) for _, _, found in seen[:2]]
    assert early[0] != early[1]
    winner = early.index(max(early))
    assert torch.equal(seen[2][1], seen[winner][1]) and not torch.equal(seen[2][1], seen[1 - winner][1])
    whole = seen[2][2]
    assert whole.history[:3] == seen[winner][2].history and len(whole.history) > 3
    assert chosen.means["quality"] == whole.validation.mean_quality()
    assert chosen.trial is not None and chosen.trial.start == replace(ITEMS_START, item_exponent=(-0.2, 0.3)[winner])


def test_a_plain_recommender_config_trains_from_fresh(data: Interactions, small_config) -> None:
    assert names(trials_of(data, spec_of(data), small_config())) == ["fresh-bpr"]


def test_what_a_method_starts_from_itself_is_the_only_start(data: Interactions) -> None:
    spec = spec_of(data, initial={"table": torch.zeros(data.n, 1, 16)})
    assert names(trials_of(data, spec, settings())) == ["own-bpr"]


def test_a_start_that_is_chosen_already_is_the_only_one(data: Interactions) -> None:
    start = Start("spectral", "items", 0.2, 0.75)
    assert {trial.start for trial in trials_of(data, spec_of(data, start=start), settings())} == {start}


def test_a_full_table_is_tried_with_rows_of_one_side_too(data: Interactions) -> None:
    spec = TableSpec("full", masks.full(data.n, 16), 0)
    found = trials_of(data, spec, settings())
    assert [trial.side for trial in found] == [side for side in (None, "items", "users") for _ in range(3)]
    items = found[3].mask(spec.mask, data.n_users)
    assert isinstance(items, PrefixMask)
    assert items.sizes.tolist() == [0] * data.n_users + [16] * data.n_items
    assert found[0].mask(spec.mask, data.n_users) is spec.mask


@pytest.mark.parametrize("side", [None, "items"])
def test_words_and_trial_are_one(data: Interactions, side: Any) -> None:
    config = settings()
    trial = Trial(Start("spectral", "both", 0.15, 0.25), config.gentle_training("squared", 10, True), side)
    assert Trial.of(trial.described(), config, 10) == trial
    fresh = Trial(Start("fresh"), config.training)
    assert Trial.of(fresh.described(), config, 10) == fresh


@pytest.mark.parametrize("backbone", ["lightgcn", "ngcf", "ncf", "items"])
def test_the_best_trial_is_chosen_and_never_worse_than_its_start(
    data: Interactions, tmp_path: Path, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, found = settings(backbone, start="spectral"), []
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    spec = TableSpec("equal", masks.equal(data.n, 16, 0.75, bounds=bounds), 0, Fraction(3, 4))

    def spy(*arguments: Any) -> Any:
        found.append(fit(*arguments))
        return found[-1]

    fit = protocol.fit
    monkeypatch.setattr(protocol, "fit", spy)
    chosen = train_and_choose(data, spec, config, Storage(tmp_path))
    qualities = [result.validation.mean_quality() for result in found]
    assert chosen.means["quality"] == max(qualities)
    for result in found:
        assert result.history[0].epoch == 0 and result.history[0].loss is None
        assert result.validation.mean_quality() == max(
            record.quality for record in result.history if record.quality is not None
        )
    assert chosen.history[0].quality <= chosen.means["quality"]


@pytest.mark.parametrize("start", ["spectral", "cut", "projected"])
def test_the_refit_begins_with_the_same_start_on_all_that_is_known(
    data: Interactions, tmp_path: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a spectral start the axes, of the others the reference, come from training and validation pairs."""
    config, seen = settings(start=start, loss="squared"), []

    def spy(trained_on: Interactions, request: Any) -> Any:
        seen.append((len(trained_on.train), request.initial["table"].clone(), request.epochs))
        return fit(trained_on, request)

    fit = protocol.fit
    monkeypatch.setattr(protocol, "fit", spy)
    train_table(data, spec_of(data), config, Storage(tmp_path))
    own = [entry for entry in seen if not torch.equal(entry[1], seen[0][1])] or seen
    assert seen[-1][0] == len(data.train) + len(data.valid)
    assert seen[-1][2] is not None
    assert not torch.equal(seen[-1][1], seen[0][1]) and len(own) > 0
    card = load(tmp_path / "tables" / "equal-c75-s0").card
    assert card["start"]["name"] == start and card["loss"] == "squared"
    assert card["coverage"]["item_rows"] == 1.0
    assert 0 < card["coverage"]["items_in_top_20"] <= 1


def test_a_one_sided_full_table_is_saved_and_served(data: Interactions, tmp_path: Path) -> None:
    config = settings()
    spec = TableSpec("full", masks.full(data.n, 16), 0)
    train_table(data, spec, config, Storage(tmp_path))
    table = load(tmp_path / "tables" / "full-s0")
    assert table.card["sparsity"] == 0
    if table.card.get("side") == "items":
        assert (table.to_dense()[: data.n_users] == 0).all()
    assert len(table.recommend(int(data.user_ids[0].as_py()), k=3).items) == 3


def test_a_start_that_the_backbone_does_not_allow_is_refused(data: Interactions) -> None:
    with pytest.raises(ValidationError, match="start projected is not for backbone ngcf, whose scores change"):
        settings("ngcf", start="projected")


def test_results_name_start_loss_and_coverage(data: Interactions, tmp_path: Path) -> None:
    for loss in ("softmax", "squared"):
        result = train_table(data, spec_of(data), settings(loss=loss), Storage(tmp_path / loss))
        assert {(row["start"], row["loss"]) for row in result.rows} == {("spectral", loss)}
    values = {(row["split"], row["metric"], row["k"]): row["value"] for row in result.rows}
    assert values["test", "ItemRows", None] == 1.0
    assert 0 < values["test", "Coverage", 20] <= 1
    assert ("test", "Interval", None) not in values
    sampled = train_table(data, spec_of(data), settings(evaluate_users=30), Storage(tmp_path / "sampled"))
    values = {(row["split"], row["metric"], row["k"]): row["value"] for row in sampled.rows}
    assert 0 < values["test", "Interval", None] < 0.2


def test_an_item_without_a_row_is_counted(data: Interactions, tmp_path: Path) -> None:
    sizes = np.repeat([2, 4], [data.n_users, data.n_items]).astype(np.int16)
    sizes[data.n_users :][::4] = 0
    spec = TableSpec("mixed", PrefixMask(sizes, 16), 0, Fraction(3, 4))
    result = train_table(data, spec, settings(start="fresh", training={"max_epochs": 2}), Storage(tmp_path))
    (share,) = [row["value"] for row in result.rows if row["metric"] == "ItemRows"]
    assert share == pytest.approx(0.75)


@pytest.mark.parametrize("backbone", ["lightgcn", "ngcf", "ncf"])
def test_masks_that_keep_any_entries_start_like_others(data: Interactions, tmp_path: Path, backbone: str) -> None:
    """As PEP's do: what the mask drops stays 0, and the start is worth more than a fresh table."""
    tables = 2 if backbone == "ncf" else 1
    kept = np.random.default_rng(0).random((data.n, 16 * tables)) < 0.3
    spec = TableSpec("pep", SparseMask.from_dense(kept, 16), 0, masks.exact(0.5))
    chosen = train_and_choose(data, spec, settings(backbone), Storage(tmp_path))
    assert chosen.trial is not None and chosen.trial.start is not None
    assert chosen.trial.start.name in ("spectral", "projected")
    width = chosen.result.table.shape[1]
    assert width == 16 * tables
    assert (chosen.result.table[~kept] == 0).all()
    fresh = settings(backbone, start="fresh", training={"max_epochs": 1, "evaluate_every": 1})
    untrained = train_and_choose(data, spec, fresh, Storage(tmp_path / "fresh")).history[0].quality
    assert chosen.history[0].quality > 1.2 * untrained
