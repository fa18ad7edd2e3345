"""The scripts that make data to measure on, and the one that gathers what was measured."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

import ciess
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.runs.fit import fit_tables
from ciess.runs.search import run_search

Script = Callable[[str], ModuleType]


def test_a_sparse_sample_keeps_twice_the_pairs_of_every_user(script: Script, planted: Planted, tmp_path: Path) -> None:
    data, sample = planted.data, script("sparse_sample").sample
    known = data.train + data.valid + data.test
    found = sample(data, 3, 0)
    assert set(np.bincount(found.users, minlength=data.n_users).tolist()) == {6}
    keys = known.users.astype(np.int64) * data.n_items + known.items
    assert np.isin(found.users.astype(np.int64) * data.n_items + found.items, keys).all()
    again, other = sample(data, 3, 0), sample(data, 3, 1)
    np.testing.assert_array_equal(found.items, again.items)
    assert (found.items != other.items).any()
    assert len(sample(data, 1000, 0)) == len(known)


def test_a_sparse_sample_splits_into_the_training_pairs_asked_for(
    script: Script, planted_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "few.parquet"
    script("sparse_sample").main([str(planted_csv), str(out), "--pairs", "4"])
    data: Interactions = ciess.read(str(out))
    assert set(data.user_degrees().tolist()) == {4}
    assert f"{8 * data.n_users:,} interactions of {data.n_users:,} users" in capsys.readouterr().out


@pytest.mark.parametrize(("side", "count"), [("users", 30), ("items", 20)])
def test_a_core_of_some_rows_keeps_all_that_they_have_of_enough(
    script: Script, planted: Planted, side: str, count: int
) -> None:
    data, sample = planted.data, script("sparse_sample").of_some
    known = data.train + data.valid + data.test
    whole, core = sample(data, side, count, 1, 0), sample(data, side, count, 6, 0)
    drawn = np.unique(getattr(whole, side))
    assert len(drawn) == count
    assert len(whole) == np.isin(getattr(known, side), drawn).sum()
    assert np.isin(getattr(core, side), drawn).all()
    for codes in (core.users, core.items):
        assert np.unique(codes, return_counts=True)[1].min() >= 6
    # What it leaves out goes for good: without one item too few, the others still have enough.
    counts = np.unique(whole.items, return_counts=True)
    assert not np.isin(counts[0][counts[1] < 6], core.items).any()
    assert len(core) > 0
    assert np.unique(getattr(sample(data, side, count, 1, 1), side)).tolist() != drawn.tolist()


def test_synthetic_data_have_clusters_and_power_laws(script: Script, tmp_path: Path) -> None:
    module = script("synthetic")
    users, items = module.draw(4000, 60_000, 60_000, 0)
    assert abs(len(users) - 60_000) < 9_000
    assert len(np.unique(users)) == 4000
    keys = users.astype(np.int64) * 60_000 + items
    assert (np.diff(keys) > 0).all()
    counts = np.sort(np.bincount(items, minlength=60_000))[::-1]
    assert counts[:6000].sum() > 0.3 * counts.sum()
    again = module.draw(4000, 60_000, 60_000, 0)
    np.testing.assert_array_equal(items, again[1])
    module.main([str(tmp_path / "a.parquet"), "--users", "500", "--items", "400", "--interactions", "8000"])
    assert pq.read_table(tmp_path / "a.parquet").column_names == ["user_id", "item_id"]
    assert ciess.read(str(tmp_path / "a.parquet")).n_users == 500


def test_results_become_rows_and_replace_older_ones(script: Script, planted: Planted, tmp_path: Path) -> None:
    config = FitConfig(
        method=("full", "equal"), sparsity=(0.8,), max_size=16, threads=1, device="cpu", gentle={"max_epochs": 2}
    )
    run, out = tmp_path / "run", tmp_path / "rows.csv"
    fit_tables(planted.data, config, DataConfig(), str(run))
    for _ in range(2):
        script("collect").main([str(run), "--out", str(out)])
        with out.open() as file:
            rows = list(csv.DictReader(file))
        assert [row["candidate"] for row in rows] == ["equal-c80-s0", "full-s0"]
    for row in rows:
        card = ciess.load(run / "tables" / row["candidate"]).card
        assert float(row["valid_quality"]) == pytest.approx(card["validation"]["quality"], abs=1e-4)
        assert float(row["test_Recall@20"]) == pytest.approx(card["test"]["Recall@20"], abs=1e-4)
        assert (row["start"], row["loss"]) == (card["start"]["name"], card["loss"])


def test_what_searches_have_added_is_gathered_a_row_a_budget(script: Script, planted: Planted, tmp_path: Path) -> None:
    out, rows = tmp_path / "run", tmp_path / "searches.csv"
    config = SearchConfig(sparsity=(0.5, 0.75), fits=4, max_size=16, kinds={"population": 4}, device="cpu", threads=1)
    search = run_search(planted.data, config, str(out))
    for _ in range(2):  # replaced, not repeated
        script("collect_searches").main([str(out), "--out", str(rows)])
    with rows.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["sparsity"] for row in found] == ["0.5", "0.75"]
    assert [row["sized"] for row in found] == [f"{verdict.sized:.4f}" for verdict in search.verdicts]
    assert {(row["strategy"], row["backbone"], row["fits"]) for row in found} == {("kinds", "lightgcn", "4")}
