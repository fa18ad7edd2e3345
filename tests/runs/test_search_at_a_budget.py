"""`ciess search --sparsity` and `ciess retrain` from end to end, on planted data."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.data import Pairs
from ciess.data.planted import Planted
from ciess.errors import DataError, RunDirectoryError
from ciess.reporting.summaries import read_results
from ciess.runs.retrain import retrain_run
from ciess.runs.search import describe_search, run_search
from ciess.search import short_fit as short_fit_module
from ciess.storage.columns import CHOSEN
from ciess.storage.storage import Storage


def config(**more: Any) -> SearchConfig:
    plain = {"sparsity": (0.75,), "fits": 8, "max_size": 16, "min_size": 1, "device": "cpu", "threads": 1}
    return SearchConfig(**plain | {"kinds": {"population": 4}, "candidates": 2} | more)


@pytest.fixture(scope="module")
def searched(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    out = str(tmp_path_factory.mktemp("search") / "run")
    return out, describe_search(run_search(planted.data, config(), out)).splitlines()


def test_it_ends_with_what_it_has_added_and_what_to_run_next(searched: tuple[str, list[str]]) -> None:
    out, lines = searched
    assert lines[0].startswith("11 masks visited") or lines[0].startswith("10 masks visited")
    assert lines[1].startswith("75 %: quality ") and "on the half of validation that it did not see" in lines[1]
    assert lines[2].startswith("  gain over sized ")
    assert lines[-1] == f"train the best masks, test and save with: ciess retrain {out} --sparsity 0.75"
    (found,) = json.loads((Path(out) / "verdict.json").read_text())
    assert found["quality"] >= found["sized"] and (Path(out) / "figures" / "halves.png").exists()
    origins = [row["origin"] for row in Storage(out).read_table("candidates.parquet").to_pylist()]
    assert origins.count("sized") == 1 and origins.count("search") == 8


def test_sized_equal_and_the_best_masks_stand_for_choice_on_the_other_half(
    planted: Planted, searched: tuple[str, list[str]]
) -> None:
    """At the budgets of the search, where no other is given."""
    out, _ = searched
    retrain_run(out, RetrainConfig(), planted.data)
    run = Storage(out)
    rows = run.read_table("retrained.parquet").to_pylist()
    assert {row["target_sparsity"] for row in rows} == {0.75}
    assert {row["origin"] for row in rows} == {"search", "sized", "equal"}
    (winner,) = (row for row in rows if row["selected"])
    assert winner["choice_quality"] == max(row["choice_quality"] for row in rows)
    results = read_results(run).to_pylist()
    assert {row["method"] for row in results} == {"full", "equal", "sized", "ciess"}
    (chosen,) = {row["candidate"] for row in results if row["role"] == CHOSEN}
    card = run.read_json(f"tables/{chosen}/card.json")
    assert (card["search"]["strategy"], card["search"]["halves"]) == ("kinds", True)
    # What was chosen by the half is told of all of validation.
    assert card["validation"]["quality"] != pytest.approx(winner["choice_quality"], abs=1e-6)


@pytest.mark.parametrize("backbone", ["items", "ngcf", "ncf"])
def test_every_backbone_is_searched_at_a_budget(planted: Planted, tmp_path: Path, backbone: str) -> None:
    search = run_search(planted.data, config(backbone=backbone, fits=4), str(tmp_path / "run"))
    (found,) = search.verdicts
    assert 0 < found.quality <= 1 and found.quality >= found.sized


def test_a_budget_that_no_mask_can_use_up(planted: Planted, tmp_path: Path) -> None:
    """Without rows of users all items of the largest size keep less than half of the table."""
    out = str(tmp_path / "run")
    search = run_search(planted.data, config(backbone="items", sparsity=(0.3,), fits=4), out)
    (found,) = search.verdicts
    assert found.best.sparsity > 0.35
    retrain_run(out, RetrainConfig(sparsity=(0.3,)), planted.data)


def test_a_sample_of_users_judges_and_all_of_them_choose(planted: Planted, tmp_path: Path) -> None:
    kinds = {"population": 4, "judged_users": 40}
    search = run_search(planted.data, config(kinds=kinds), str(tmp_path / "run"))
    assert int(search.environment.counted.sum()) <= 40
    assert all(candidate.quality > 0 for candidate in search.visited)


def test_a_resumed_search_with_another_strategy_is_refused(planted: Planted, searched: tuple[str, list[str]]) -> None:
    with pytest.raises(RunDirectoryError, match=r"config\.strategy was 'kinds', now 'random'"):
        run_search(planted.data, config(strategy="random"), searched[0], resume=True)


def test_a_finished_search_may_be_given_more_fits(planted: Planted, tmp_path: Path) -> None:
    out, whole = str(tmp_path / "run"), str(tmp_path / "whole")
    run_search(planted.data, config(fits=4), out)
    run_search(planted.data, config(fits=8), out, resume=True)
    run_search(planted.data, config(fits=8), whole)
    tables = [Storage(place).read_table("candidates.parquet") for place in (out, whole)]
    assert tables[0].equals(tables[1])
    with pytest.raises(RunDirectoryError, match="holds a search that has reached episode 8, but --episodes is 4"):
        run_search(planted.data, config(fits=4), out, resume=True)


def test_it_goes_on_after_an_interruption_and_ends_the_same(
    planted: Planted, searched: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fits = str(tmp_path / "run"), 0
    fit = short_fit_module.fit

    def interrupted(*arguments: Any) -> Any:
        nonlocal fits
        fits += 1
        if fits == 6:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(short_fit_module, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_search(planted.data, config(), out)
    monkeypatch.undo()
    run_search(planted.data, config(), out, resume=True)
    tables = [Storage(place).read_table("candidates.parquet") for place in (out, searched[0])]
    assert tables[0].equals(tables[1])


def test_validation_of_single_items_and_few_users_is_refused(planted: Planted, tmp_path: Path) -> None:
    users = np.arange(30, dtype=np.int32)
    single = dataclasses.replace(planted.data, valid=Pairs(users, np.zeros(30, np.int32)))
    with pytest.raises(DataError) as raised:
        run_search(single, config(), str(tmp_path / "run"))
    assert str(raised.value).endswith(
        "Give data with more interactions, or search and choose on all of it by --no-halves."
    )
    assert not (tmp_path / "run").exists()
