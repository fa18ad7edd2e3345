"""What Eq. 16 chooses on validation, and what becomes of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ciess import masks
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.retraining.retraining import Retraining
from ciess.search.reference import Reference
from ciess.storage.columns import EQUAL_WON
from ciess.tables import protocol
from ciess.tables.table import load
from ciess.training.fit import fit
from ciess.training.loop import FitRequest

Row = dict[str, Any]
Start = Callable[..., Retraining]
Epochs = list[tuple[str, int, str, int]]
Call = Callable[..., Any]


def ratio_by_hand(data: Interactions, quality: list[float], base: list[float]) -> float:
    """Eq. 16 entity by entity: Eq. 7 of users, and of items by the mean over their training users (Eq. 9)."""
    users_of: list[list[int]] = [[] for _ in range(data.n_items)]
    for user, item in zip(data.train.users.tolist(), data.train.items.tolist(), strict=True):
        users_of[item].append(user)
    pairs = list(zip(quality, base, strict=True))
    for users in users_of:
        pairs.append((np.mean([quality[user] for user in users]), np.mean([base[user] for user in users])))
    return float(np.mean([1.0 if reference == 0 else min(1.0, now / reference) for now, reference in pairs]))


class TestChoice:
    @pytest.mark.parametrize("sparsity", [0.8, 0.9])
    def test_validation_chooses_by_the_mean_quality_ratio(
        self,
        finished: tuple[Retraining, Epochs, list[str]],
        planted: Planted,
        found: Reference,
        sparsity: float,
        rows: Call,
    ) -> None:
        retraining, data = finished[0], planted.data
        options = retraining.options(sparsity)
        recorded = rows(retraining.run, target_sparsity=sparsity)
        assert len(recorded) == len(options) == 5
        ratios = []
        for option, row in zip(options, recorded, strict=True):
            alone = fit(data, FitRequest(retraining.recommender, option.mask, 0))
            assert alone.validation is not None
            quality = alone.validation.quality().tolist()
            ratios.append(ratio_by_hand(data, quality, found.quality[: data.n_users].tolist()))
            assert row["quality_ratio"] == pytest.approx(ratios[-1], abs=1e-6)
            assert row["quality"] == alone.validation.mean_quality()
            assert row["epochs"] == alone.best_epoch
            assert row["sparsity"] == float(masks.sparsity(option.mask))
            assert (row["seed"], row["origin"], row["where"], row["short_quality_ratio"], row["mask"]) == (
                0,
                option.origin,
                option.where,
                option.short_ratio,
                option.key,
            )
        assert [row["selected"] for row in recorded] == [ratio == max(ratios) for ratio in ratios]
        card = load(retraining.run.child("tables", f"ciess-c{100 * sparsity:g}-s0")).card
        assert card["search"]["mask_sha256"] == options[int(np.argmax(ratios))].key

    def test_the_chosen_mask_is_refit_on_train_and_validation_and_tested(
        self, finished: tuple[Retraining, Epochs, list[str]], planted: Planted, rows: Call, results: Call
    ) -> None:
        retraining, data = finished[0], planted.data
        (row,) = rows(retraining.run, target_sparsity=0.9, selected=True)
        (option,) = [option for option in retraining.options(0.9) if option.key == row["mask"]]
        assert option.where == "episode 1, iteration 4, lane 0"
        table = load(retraining.run.child("tables", "ciess-c90-s0"))
        alone = fit(
            data.merged(), FitRequest(retraining.recommender, option.mask, 0, epochs=row["epochs"], evaluate=False)
        )
        np.testing.assert_array_equal(table.to_dense()[:, : option.mask.width], alone.table)
        assert table.card["trained_on"] == "train+valid"
        test = protocol.test_metrics(data.merged(), retraining.recommender, alone)
        expected = test.means() | {"quality": test.mean_quality()}
        assert table.card["test"] == expected
        values = results(retraining.run, candidate="ciess-c90-s0", split="test")
        values = [row for row in values if row["metric"] not in ("Coverage", "ItemRows")]
        assert {row["metric"] + (f"@{row['k']}" if row["k"] else ""): row["value"] for row in values} == expected
        assert table.recommend(str(data.user_ids[0]), k=3).items

    def test_every_table_and_its_flag(self, finished: tuple[Retraining, Epochs, list[str]], results: Call) -> None:
        run = finished[0].run
        flags = {row["candidate"]: row["flag"] for row in results(run)}
        assert flags == {
            "ciess-c80-s0": EQUAL_WON,
            "ciess-c80-searched-s0": None,
            "ciess-c90-s0": None,
            **dict.fromkeys(("equal-c80-s0", "equal-c90-s0", "mixed-c80-s0", "mixed-c90-s0", "full-s0")),
        }
        assert run.child("tables").names() == sorted(flags)
        assert {name: load(run.child("tables", name)).card["flag"] for name in flags} == flags

    def test_the_best_searched_mask_is_reported_beside_equal_sizes_that_won(
        self, finished: tuple[Retraining, Epochs, list[str]], rows: Call
    ) -> None:
        run = finished[0].run
        recorded = rows(run, target_sparsity=0.8)
        best = max((row for row in recorded if row["origin"] == "search"), key=lambda row: row["quality_ratio"])
        (winner,) = [row for row in recorded if row["selected"]]
        assert winner["origin"] == "equal"
        for name, row in (("ciess-c80-s0", winner), ("ciess-c80-searched-s0", best)):
            card = load(run.child("tables", name)).card
            assert (card["search"]["mask_sha256"], card["search"]["mask"]) == (row["mask"], row["where"])
            assert card["epochs"] == row["epochs"]

    def test_what_is_said_of_the_search(
        self, finished: tuple[Retraining, Epochs, list[str]], config: SearchConfig, results: Call
    ) -> None:
        run = finished[0].run
        names = ("search_id", "budget_mode", "memory_weight", "noise", "random_walk", "walk_weights")
        for row in results(run):
            said = tuple(row[name] for name in names)
            assert said == (
                ("abc", "penalty", 0.4, "gaussian", True, "distance") if row["method"] == "ciess" else (None,) * 6
            )
        said = load(run.child("tables", "ciess-c90-s0")).card["search"]
        assert {name: said[name] for name in names} == dict(
            zip(names, ("abc", "penalty", 0.4, "gaussian", True, "distance"), strict=True)
        )

    @pytest.mark.parametrize("ratios", [[0.5, 0.75, 0.75, 0.75, 0.75], [0.5] * 5])
    def test_a_tie_goes_to_the_first(self, start: Start, ratios: list[float], rows: Call, judge: Call) -> None:
        """To a searched mask before equal sizes, and among searched ones to that of the better short fit."""
        retraining = start(compare=())
        options = retraining.options(0.9)
        judge(retraining.run, options, ratios)
        retraining.budget(0.9, 0)
        first = options[ratios.index(max(ratios))]
        assert [row["where"] for row in rows(retraining.run, selected=True)] == [first.where]
        card = load(retraining.run.child("tables", "ciess-c90-s0")).card
        assert (card["search"]["mask_sha256"], card["flag"]) == (first.key, None)
