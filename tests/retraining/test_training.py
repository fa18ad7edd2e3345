"""What is trained for the tables of a retraining, no more than once."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciess import masks
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.config.search import SearchConfig
from ciess.data.planted import Planted
from ciess.retraining.choice import mask_key
from ciess.retraining.retraining import Retraining
from ciess.runs.fit import fit_tables
from ciess.search.reference import train_reference
from ciess.storage.columns import EQUAL_WON, PROJECTED
from ciess.storage.storage import Storage
from ciess.tables.table import load
from ciess.training.fit import fit
from ciess.training.loop import FitRequest

MAX_SIZE = 16
Row = dict[str, Any]
Start = Callable[..., Retraining]
Epochs = list[tuple[str, int, str, int]]
Call = Callable[..., Any]


class TestTraining:
    def test_nothing_is_trained_twice(self, finished: tuple[Retraining, Epochs, list[str]], planted: Planted) -> None:
        """Equal sizes stand for choice, win and are compared with, and the reference is the full table's training."""
        retraining, epochs, tests = finished
        assert len(set(epochs)) == len(epochs)
        full = mask_key(masks.full(planted.data.n, MAX_SIZE))
        assert {stage for key, _, stage, _ in epochs if key == full} == {"refit"}
        assert len(tests) == len(retraining.run.child("tables").names()) == 8

    @pytest.mark.parametrize("seed", [0, 1])
    def test_full_equal_and_mixed_are_those_of_ciess_fit(
        self,
        finished: tuple[Retraining, Epochs, list[str]],
        start: Start,
        planted: Planted,
        config: SearchConfig,
        tmp_path: Path,
        trained: Epochs,
        seed: int,
        monkeypatch: pytest.MonkeyPatch,
        results: Call,
    ) -> None:
        retraining = finished[0]
        if seed == 1:
            retraining = start()
            retraining.budget(0.8, 1)
            retraining.full(1)
            # The reference is of seed 0, so the full table has nothing to start from.
            full = mask_key(masks.full(planted.data.n, MAX_SIZE))
            assert {(key, stage) for key, number, stage, _ in trained if key == full} == {
                (full, "choose"),
                (full, "refit"),
            }
        monkeypatch.setattr("ciess.runs.fit.write_report", lambda *_: [])
        alone = {name: getattr(config, name) for name in RecommenderConfig.model_fields}
        fit_tables(
            planted.data,
            FitConfig(**alone, method=("full", "equal", "mixed"), sparsity=(0.8,), seeds=(seed,), start="fresh"),
            DataConfig(),
            str(tmp_path / "fit"),
        )
        run = Storage(tmp_path / "fit")
        names = [f"full-s{seed}", f"equal-c80-s{seed}", f"mixed-c80-s{seed}"]
        assert sorted({row["candidate"] for row in results(run)}) == sorted(names)
        for name in names:
            assert results(retraining.run, candidate=name) == results(run, candidate=name)
            for file in ("weights.safetensors", "history.parquet", "edges.parquet"):
                path = f"tables/{name}/{file}"
                assert retraining.run.read_bytes(path) == run.read_bytes(path)

    @pytest.mark.parametrize("compare", [(), ("mixed",)])
    def test_only_what_is_asked_for_is_compared_with(self, start: Start, compare: tuple[str, ...]) -> None:
        retraining = start(compare=compare)
        retraining.budget(0.9, 0)
        retraining.full(0)
        assert retraining.run.child("tables").names() == ["ciess-c90-s0", *(f"{name}-c90-s0" for name in compare)]

    def test_without_refit(self, start: Start, planted: Planted, trained: Epochs) -> None:
        """What validation chose is tested as it is; a later refit replaces it."""
        retraining = start(refit=False, compare=("full",))
        retraining.budget(0.9, 0)
        retraining.full(0)
        assert {stage for _, _, stage, _ in trained} == {"choose"}
        alone = fit(planted.data, FitRequest(retraining.recommender, retraining.options(0.9)[0].mask, 0))
        table = load(retraining.run.child("tables", "ciess-c90-s0"))
        assert table.card["trained_on"] == "train"
        np.testing.assert_array_equal(table.to_dense()[:, : alone.table.shape[1]], alone.table)
        trained.clear()
        again = start(compare=("full",))
        again.budget(0.9, 0)
        assert {stage for _, _, stage, _ in trained} == {"refit"}
        assert load(again.run.child("tables", "ciess-c90-s0")).card["trained_on"] == "train+valid"

    def test_what_is_done_is_not_done_again(self, start: Start, trained: Epochs, rows: Call, results: Call) -> None:
        """Even without the checkpoints, which are gone when a retraining has ended."""
        retraining = start(compare=("equal",))
        for seed in (0, 1):
            retraining.budget(0.8, seed)
        retraining.run.delete("progress")
        before = results(retraining.run), rows(retraining.run)
        cards = {
            name: retraining.run.read_bytes(f"tables/{name}/card.json")
            for name in retraining.run.child("tables").names()
        }
        trained.clear()
        again = start(compare=("equal",))
        for seed in (0, 1):
            again.budget(0.8, seed)
        assert trained == []
        assert results(again.run) == before[0]
        assert sorted(map(str, rows(again.run))) == sorted(map(str, before[1]))
        assert {name: again.run.read_bytes(f"tables/{name}/card.json") for name in cards} == cards

    def test_a_search_that_went_on(
        self, start: Start, planted: Planted, trained: Epochs, visited: Call, rows: Call, results: Call
    ) -> None:
        """Only the new mask is trained, and where it wins its table takes the place of the old one."""
        old = [one for one in visited(planted.data) if one.iteration != 4 or one.origin == "equal"]
        first = start(old, compare=("equal",))
        first.budget(0.9, 0)
        first.run.delete("progress")
        before = load(first.run.child("tables", "ciess-c90-s0")).card["search"]["mask_sha256"]
        equal = first.run.read_bytes("tables/equal-c90-s0/card.json")
        trained.clear()
        second = start(compare=("equal",))
        second.budget(0.9, 0)
        new = second.options(0.9)[0]
        assert {key for key, _, _, _ in trained} == {new.key}
        card = load(second.run.child("tables", "ciess-c90-s0")).card
        assert before != card["search"]["mask_sha256"] == new.key
        assert second.run.read_bytes("tables/equal-c90-s0/card.json") == equal
        assert len({row["value"] for row in results(second.run, candidate="ciess-c90-s0", metric="quality")}) == 2
        assert len(results(second.run, candidate="ciess-c90-s0")) == 16
        assert [row["where"] for row in rows(second.run)] == [option.where for option in second.options(0.9)]

    def test_equal_sizes_that_no_longer_win(self, start: Start, config: SearchConfig, results: Call) -> None:
        """The table of the best searched mask beside them is theirs no more, and goes."""
        first = start(compare=())
        first.budget(0.8, 0)
        assert first.run.child("tables").names() == ["ciess-c80-s0", "ciess-c80-searched-s0"]
        second = start(compare=(), config=config.model_copy(update={"include_equal": False}))
        second.budget(0.8, 0)
        assert second.run.child("tables").names() == ["ciess-c80-s0"]
        assert {(row["candidate"], row["flag"]) for row in results(second.run)} == {("ciess-c80-s0", None)}
        per_user = second.run.read_table("per_user.parquet")
        assert set(per_user["candidate"].to_pylist()) == {"ciess-c80-s0"}

    def test_a_projected_mask_is_flagged(
        self, start: Start, config: SearchConfig, planted: Planted, visited: Call, results: Call
    ) -> None:
        alone = config.model_copy(update={"include_equal": False})
        seen = [one for one in visited(planted.data) if one.iteration != 3]
        retraining = start(seen, compare=(), project=True, candidates=1, config=alone)
        retraining.budget(0.93, 0)
        card = load(retraining.run.child("tables", "ciess-c93-s0")).card
        assert card["flag"] == "projected"
        assert card["search"]["mask"] == "episode 1, iteration 4, lane 0, projected"
        assert {row["flag"] for row in results(retraining.run)} == {"projected"}
        assert card["kept_parameters"] == 224 == int((1 - Fraction("0.93")) * 200 * MAX_SIZE)

    def test_a_projected_mask_beside_equal_sizes_that_won(
        self, start: Start, planted: Planted, visited: Call, results: Call, judge: Call
    ) -> None:
        seen = [one for one in visited(planted.data) if one.iteration != 3]
        retraining = start(seen, compare=(), project=True, candidates=1)
        options = retraining.options(0.93)
        judge(retraining.run, options, [0.5, 0.75, 0.25])
        retraining.budget(0.93, 0)
        flags = {row["candidate"]: row["flag"] for row in results(retraining.run)}
        assert flags == {"ciess-c93-s0": EQUAL_WON, "ciess-c93-searched-s0": PROJECTED}

    @pytest.mark.parametrize("backbone", ["ngcf", "ncf"])
    def test_other_backbones(
        self,
        start: Start,
        planted: Planted,
        small: Callable[..., RecommenderConfig],
        tmp_path: Path,
        backbone: str,
        settings_of: Call,
        rows: Call,
        results: Call,
    ) -> None:
        data, config = planted.data, settings_of(small(backbone), random_walk=False)
        found = train_reference(data, config.recommender(), 0, Storage(tmp_path / "reference"))
        retraining = start(config=config, found=found, candidates=2)
        retraining.budget(0.9, 0)
        retraining.full(0)
        table = load(retraining.run.child("tables", "ciess-c90-s0"))
        best = max(rows(retraining.run), key=lambda row: row["quality_ratio"])
        assert table.card["search"]["mask_sha256"] == best["mask"]
        assert {row["walk_weights"] for row in results(retraining.run, method="ciess")} == {None}
        tables = 2 if backbone == "ncf" else 1
        assert {row["kept_parameters"] for row in results(retraining.run, candidate="full-s0")} == {
            200 * MAX_SIZE * tables
        }
        assert len(table.recommend(int(data.user_ids[3].as_py()), k=5).items) == 5
