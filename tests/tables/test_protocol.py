import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions, Pairs
from ciess.data.planted import Planted
from ciess.errors import FitError
from ciess.evaluation.metrics import CUTOFFS
from ciess.storage.storage import Storage
from ciess.tables import protocol
from ciess.tables.protocol import train_and_choose, train_table
from ciess.tables.spec import TableSpec
from ciess.tables.table import CompressedTable, load
from ciess.training.fit import FitResult, fit
from ciess.training.loop import FitRequest


@pytest.fixture(scope="module")
def config(small_config: Callable[..., RecommenderConfig]) -> RecommenderConfig:
    """Of a training that becomes worse on validation before it ends, so that there is an epoch to choose."""
    return small_config(learning_rate=0.05, max_epochs=20, evaluate_every=2, patience=3)


def equal(data: Interactions, seed: int = 0, **changes: Any) -> TableSpec:
    return TableSpec("equal", masks.equal(data.n, 16, "0.8"), seed, Fraction(4, 5), **changes)


def by_user(pairs: Pairs, n_users: int) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(n_users)]
    for user, item in zip(pairs.users.tolist(), pairs.items.tolist(), strict=True):
        found[user].add(item)
    return found


def brute_force(table: CompressedTable, data: Interactions) -> dict[int, dict[str, float]]:
    """Metrics on test of each user with a test item, by sorting all items that are in neither train nor validation."""
    scores = table.scores(np.arange(data.n_users))
    known, held_out = by_user(data.train + data.valid, data.n_users), by_user(data.test, data.n_users)
    found: dict[int, dict[str, float]] = {}
    for user in range(data.n_users):
        if not held_out[user]:
            continue
        left = [item for item in range(data.n_items) if item not in known[user]]
        ranked = sorted(left, key=lambda item: (-scores[user, item], item))
        found[user] = {}
        for k in CUTOFFS:
            hits = [rank for rank, item in enumerate(ranked[:k], start=1) if item in held_out[user]]
            ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(held_out[user])) + 1))
            found[user][f"Recall@{k}"] = len(hits) / len(held_out[user])
            found[user][f"NDCG@{k}"] = sum(1 / math.log2(rank + 1) for rank in hits) / ideal
    return found


def check_rows(run: Storage, name: str, data: Interactions) -> None:
    """The test rows and the rows of users are those of the table that was saved."""
    metrics = brute_force(load(run.child("tables", name)), data)
    expected = {key: float(np.mean([row[key] for row in metrics.values()])) for key in next(iter(metrics.values()))}
    rows = [row for row in run.read_table("results.parquet").to_pylist() if row["split"] == "test"]
    beside = ("quality", "Coverage", "ItemRows")
    values = {f"{row['metric']}@{row['k']}": row["value"] for row in rows if row["metric"] not in beside}
    assert values == pytest.approx(expected, abs=1e-6)
    assert len(expected) == 6
    (quality,) = [row["value"] for row in rows if row["metric"] == "quality"]
    assert quality == pytest.approx(np.mean(list(expected.values())), abs=1e-6)
    per_user = run.read_table("per_user.parquet")
    assert per_user["user"].to_pylist() == list(metrics)
    np.testing.assert_allclose(
        per_user["quality"].to_numpy(), [np.mean(list(row.values())) for row in metrics.values()], atol=1e-6
    )


Fits = list[tuple[Interactions, FitRequest, FitResult]]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    """Every fit that the protocol asks for, with what it gave."""
    seen: Fits = []

    def spy(data: Interactions, request: FitRequest) -> FitResult:
        seen.append((data, request, fit(data, request)))
        return seen[-1][2]

    monkeypatch.setattr(protocol, "fit", spy)
    return seen


def test_refit_trains_on_train_and_validation_for_the_chosen_epochs(
    planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits
) -> None:
    data, run = planted.data, Storage(tmp_path)
    train_table(data, equal(data), config, run)
    (chosen_on, train_and_choose, chosen), (trained_on, refit, final) = fits
    assert chosen_on is data
    assert train_and_choose.epochs is None
    assert 0 < chosen.best_epoch < chosen.epochs
    both = data.train + data.valid
    np.testing.assert_array_equal(trained_on.train.users, both.users)
    np.testing.assert_array_equal(trained_on.train.items, both.items)
    assert len(trained_on.valid) == 0
    assert refit.epochs == final.epochs == chosen.best_epoch
    assert train_and_choose.mask is refit.mask
    assert train_and_choose.seed == refit.seed == 0
    table = load(run.child("tables", "equal-c80-s0"))
    np.testing.assert_array_equal(table.scores([0, 1]), final.recommender.score_users(torch.tensor([0, 1])).numpy())
    assert table.card["epochs"] == chosen.best_epoch
    assert table.card["trained_on"] == "train+valid"
    assert (table.card["method"], table.card["target_sparsity"], table.card["flag"]) == ("equal", 0.8, None)
    assert {row["epochs"] for row in run.read_table("results.parquet").to_pylist()} == {chosen.best_epoch}
    check_rows(run, "equal-c80-s0", data)


def test_without_refit_the_chosen_weights_are_tested(
    planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits
) -> None:
    data, run = planted.data, Storage(tmp_path)
    train_table(data, equal(data), config, run, refit=False)
    ((_, _, chosen),) = fits
    table = load(run.child("tables", "equal-c80-s0"))
    np.testing.assert_array_equal(table.to_dense()[:, : chosen.table.shape[1]], chosen.table)
    assert table.card["trained_on"] == "train"
    assert len(table.graph_pairs) == len(data.train)
    check_rows(run, "equal-c80-s0", data)


def test_test_data_chooses_nothing(planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits) -> None:
    data = planted.data
    # Every user's test items become others that the user does not know otherwise.
    known = by_user(data.train + data.valid, data.n_users)
    old = by_user(data.test, data.n_users)
    new = [sorted(set(range(data.n_items)) - known[user] - old[user])[: len(old[user])] for user in range(data.n_users)]
    users = np.repeat(np.arange(data.n_users), [len(items) for items in new])
    altered = dataclasses.replace(data, test=Pairs.sorted(users, np.concatenate([np.array(items) for items in new])))
    results = [
        train_table(version, equal(data), config, Storage(tmp_path / name))
        for name, version in (("given", data), ("altered", altered))
    ]
    (_, _, chosen), (_, _, final), (_, _, chosen_altered), (_, _, final_altered) = fits
    assert chosen.best_epoch == chosen_altered.best_epoch
    np.testing.assert_array_equal(chosen.table, chosen_altered.table)
    np.testing.assert_array_equal(final.table, final_altered.table)
    for split, same in (("valid", True), ("test", False)):
        given, other = ([row["value"] for row in result.rows if row["split"] == split] for result in results)
        assert (given == other) == same


def test_validation_data_chooses(planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits) -> None:
    """The other side of the test above: what is permuted there does matter where it should."""
    data = planted.data
    swapped = dataclasses.replace(data, valid=data.test, test=data.valid)
    for name, version in (("given", data), ("swapped", swapped)):
        train_table(version, equal(data), config, Storage(tmp_path / name), refit=False)
    (_, _, chosen), (_, _, chosen_swapped) = fits
    for given, other in zip(chosen.history, chosen_swapped.history, strict=False):
        assert given.loss == other.loss
        assert given.quality is None or given.quality != other.quality
    for result in (chosen, chosen_swapped):
        qualities = {record.epoch: record.quality for record in result.history if record.quality is not None}
        assert result.best_epoch == max(qualities, key=lambda epoch: qualities[epoch])


@pytest.mark.parametrize("refit", [True, False])
def test_test_is_ranked_once(
    planted: Planted,
    config: RecommenderConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refit: bool,
) -> None:
    from ciess.evaluation.metrics import evaluate
    from ciess.training import prepared

    data = planted.data
    degrees = {name: np.bincount(getattr(data, name).users, minlength=data.n_users) for name in ("valid", "test")}
    assert (degrees["valid"] != degrees["test"]).any()
    ranked = []

    def spy(score_users: Any, seen: Any, held_out: Any, *others: Any, **further: Any) -> Any:
        counts = held_out.counts.numpy()
        ranked.append("".join(name for name, expected in degrees.items() if (counts == expected).all()))
        if ranked[-1] == "test":
            hidden = sum(lookup.counts.numpy() for lookup in seen)
            np.testing.assert_array_equal(hidden, data.user_degrees() + degrees["valid"])
        return evaluate(score_users, seen, held_out, *others, **further)

    monkeypatch.setattr(prepared, "evaluate", spy)
    train_table(data, equal(data), config, Storage(tmp_path), refit=refit)
    assert ranked.count("test") == 1
    assert ranked.index("test") == len(ranked) - 1
    assert set(ranked) == {"valid", "test"}


def test_rows_on_validation_are_those_of_the_chosen_weights(
    planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits
) -> None:
    run = Storage(tmp_path)
    train_table(planted.data, equal(planted.data), config, run)
    _, _, chosen = fits[0]
    assert chosen.validation is not None
    rows = [row for row in run.read_table("results.parquet").to_pylist() if row["split"] == "valid"]
    values = {row["metric"] + (f"@{row['k']}" if row["k"] else ""): row["value"] for row in rows}
    assert values == chosen.validation.means() | {"quality": chosen.validation.mean_quality()}
    best = max(record.quality for record in chosen.history if record.quality is not None)
    assert values["quality"] == best
    history = run.child("tables", "equal-c80-s0").read_table("history.parquet").to_pylist()
    assert history == [dataclasses.asdict(record) for record in chosen.history]


def test_users_without_a_test_item_have_no_row(
    tiny: Interactions, small_config: Callable[..., RecommenderConfig], tmp_path: Path
) -> None:
    """And neither do they count in the means; input that came split has no split seed."""
    run = Storage(tmp_path)
    spec = TableSpec("full", masks.full(tiny.n, 16), 0)
    train_table(tiny, spec, small_config(max_epochs=3, evaluate_every=1), run)
    per_user = run.read_table("per_user.parquet")
    assert per_user["user"].to_pylist() == [0, 2, 3, 4]
    assert set(per_user["target_sparsity"].to_pylist()) == {None}
    assert set(run.read_table("results.parquet")["split_seed"].to_pylist()) == {None}
    check_rows(run, "full-s0", tiny)


def test_settings_of_a_subclass_change_neither_table_nor_checkpoint(
    planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits
) -> None:
    """So a table of `ciess fit` loads, and an interrupted one goes on beside more seeds."""
    data = planted.data
    settings = {name: getattr(config, name) for name in RecommenderConfig.model_fields}
    for name, seeds in (("a", (0,)), ("b", (0, 1))):
        train_table(data, equal(data), FitConfig(**settings, seeds=seeds, start="fresh"), Storage(tmp_path / name))
    assert len({request.fingerprint(data) for _, request, _ in fits[::2]}) == 1
    assert load(tmp_path / "a" / "tables" / "equal-c80-s0").config == config
    for file in ("card.json", "weights.safetensors"):
        assert (tmp_path / "a" / "tables" / "equal-c80-s0" / file).exists()


def test_training_that_breaks_down(
    planted: Planted, small_config: Callable[..., RecommenderConfig], tmp_path: Path
) -> None:
    with pytest.raises(FitError) as caught:
        train_table(planted.data, equal(planted.data, seed=7), small_config(learning_rate=1e30), Storage(tmp_path))
    for part in ("epoch 1", "learning rate 1e+30", "seed 7"):
        assert part in str(caught.value)
    assert not Storage(tmp_path).exists("results.parquet")
    assert not Storage(tmp_path).exists("tables/equal-c80-s7/card.json")


def test_progress_is_told_and_gone_when_done(planted: Planted, config: RecommenderConfig, tmp_path: Path) -> None:
    run, told = Storage(tmp_path), []
    seen_checkpoint = []

    def on_epoch(name: str, stage: str, record: Any) -> None:
        told.append((name, stage, record.epoch))
        seen_checkpoint.append(bool(run.child("progress", name, stage).names()))

    train_table(planted.data, equal(planted.data), config, run, on_epoch=on_epoch)
    card = load(run.child("tables", "equal-c80-s0")).card
    stages = {stage: [epoch for _, at, epoch in told if at == stage] for stage in ("choose", "refit")}
    assert {name for name, _, _ in told} == {"equal-c80-s0"}
    assert stages["choose"] == list(range(len(stages["choose"])))
    assert stages["refit"] == list(range(1, card["epochs"] + 1))
    assert any(seen_checkpoint)
    assert not run.exists("progress/equal-c80-s0")


@pytest.mark.parametrize("refit", [True, False])
def test_what_was_chosen_already_is_not_trained_again(
    planted: Planted, config: RecommenderConfig, tmp_path: Path, fits: Fits, refit: bool
) -> None:
    """Whether its weights are at hand, or its figures alone as those of a reference: then a refit needs no more."""
    data = planted.data
    train_table(data, equal(data), config, Storage(tmp_path / "alone"), refit)
    chosen = train_and_choose(data, equal(data), config, Storage(tmp_path / "progress"))
    assert chosen.epoch == fits[0][2].best_epoch
    assert chosen.means == fits[-1][2].validation.means() | {"quality": fits[-1][2].validation.mean_quality()}  # type: ignore[union-attr]
    expected = {row["metric"] + row["split"] + str(row["k"]): row["value"] for row in results_of(tmp_path / "alone")}
    for name, given, trainings in (
        ("weights", chosen, refit),
        ("figures", dataclasses.replace(chosen, result=None), 1),
    ):
        fits.clear()
        train_table(data, equal(data), config, Storage(tmp_path / name), refit, chosen=given)
        assert len(fits) == trainings
        assert all((request.epochs == chosen.epoch) == refit for _, request, _ in fits)
        found = {row["metric"] + row["split"] + str(row["k"]): row["value"] for row in results_of(tmp_path / name)}
        assert found == expected
        weights = [
            (tmp_path / at / "tables" / "equal-c80-s0" / "weights.safetensors").read_bytes() for at in (name, "alone")
        ]
        assert weights[0] == weights[1]


def results_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = Storage(folder).read_table("results.parquet").to_pylist()
    return rows


def test_a_shared_progress_folder_is_kept_and_trains_once(
    planted: Planted, config: RecommenderConfig, tmp_path: Path
) -> None:
    """Two tables with one mask and seed: the second goes on from where the first one ended."""
    data, run, epochs = planted.data, Storage(tmp_path), []
    folder = run.child("progress", "shared")
    for spec in (equal(data), equal(data, variant="again", search={"search_id": "abc", "mask": "equal sizes"})):
        train_table(data, spec, config, run, on_epoch=lambda name, *told: epochs.append(name), progress=folder)
        assert folder.names() == ["choose", "refit"]
    assert set(epochs) == {"equal-c80-s0"}
    tables = [run.read_bytes(f"tables/{name}/weights.safetensors") for name in ("equal-c80-s0", "equal-c80-again-s0")]
    assert tables[0] == tables[1]
    ids = {row["candidate"]: row["search_id"] for row in results_of(tmp_path)}
    assert ids == {"equal-c80-s0": None, "equal-c80-again-s0": "abc"}
    card = load(run.child("tables", "equal-c80-again-s0")).card
    assert card["search"] == {"search_id": "abc", "mask": "equal sizes"}
