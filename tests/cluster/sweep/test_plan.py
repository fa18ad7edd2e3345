"""What follows from searches whose masks are written by hand: what is trained, chosen, tested and missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciess import masks
from ciess.cluster.sweep.plan import FAILED, UNMET, Absence, RetrainingPlan
from ciess.cluster.sweep.work import TableWork
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask
from ciess.retraining.choice import mask_key
from ciess.search.reference import Reference
from ciess.storage.columns import EQUAL_WON
from ciess.training.history import EpochRecord

MAX_SIZE = 16
W2, W8 = "lightgcn-w0.2-gaussian-walk-s0", "lightgcn-w0.8-gaussian-walk-s0"
V2, V8 = "lightgcn-w0.2-gaussian-walk", "lightgcn-w0.8-gaussian-walk"
Plan = Callable[..., RetrainingPlan]
Call = Callable[..., Any]


@pytest.fixture
def finish_all(finish: Callable[..., None]) -> Callable[..., None]:
    """finish_all(plan, found, share): all trainings, each to the share that its mask has."""

    def write(plan: RetrainingPlan, found: Reference, share: Callable[[PrefixMask], float]) -> None:
        for work in plan.trainings.values():
            assert isinstance(work.spec.mask, PrefixMask)
            finish(work, found, share(work.spec.mask), plan.data.n_users, epoch=int(work.spec.mask.kept % 7 + 1))

    return write


def names(tables: dict[str, TableWork]) -> dict[str, TableWork]:
    """The table works by the names of their tables."""
    return {table.name: work for work in tables.values() for table in work.tables}


def searched_best(mask: PrefixMask) -> float:
    """Masks of one size serve worse than others."""
    return 0.5 if mask.sizes.min() == mask.sizes.max() else 0.75


def equal_best(mask: PrefixMask) -> float:
    return 0.75 if mask.sizes.min() == mask.sizes.max() else 0.5


class TestTrainings:
    def test_a_mask_that_many_ask_for_is_trained_once(
        self, plan: Plan, planted: Planted, sizes_of: Call, candidate: Call, plain: Call
    ) -> None:
        """Equal sizes stand beside both searches, and are a method of their own; the second mask is of both, too."""
        data = planted.data
        other = {W8: [candidate(sizes_of(data, 7, 8), 1, 0.9), plain(data)[1]]}
        trainings = plan(other).trainings
        trained = [work.spec.mask.sizes.tobytes() for work in trainings.values()]
        expected = [
            *(sizes_of(data, users, items).tobytes() for users, items in ((8, 7), (7, 8), (2, 3), (8, 8), (4, 4))),
            *(table.spec.mask.sizes.tobytes() for table in trainings.values() if table.spec.method == "mixed"),
        ]
        assert len(set(trained)) == len(trained) == len(expected) == 7
        assert sorted(trained) == sorted(expected)

    def test_each_has_a_folder_of_its_own(self, plan: Plan) -> None:
        found = plan()
        assert {work.folder.root for work in found.trainings.values()} == {
            f"{found.sweep.root}/trainings/{key}" for key in found.trainings
        }
        assert not any(work.finished for work in found.trainings.values())

    def test_a_mask_is_trained_anew_for_another_seed_and_backbone(self, plan: Plan, sweep_config: Call) -> None:
        config = sweep_config(methods=("equal",), sparsities=(0.5,), memory_weights=(0.2,))
        one = len(plan(config=config).trainings)
        # What is not finished stands as a failed search; the methods need no search.
        more = config.model_copy(update={"seeds": (0, 1), "backbones": ("lightgcn", "ncf")})
        failed = {name: "gone" for name in more.searches if name != W2}
        assert len(plan(config=more, failures=failed).trainings) == one + 3

    def test_full_is_trained_by_no_one(self, plan: Plan) -> None:
        kept = {work.spec.mask.kept for work in plan().trainings.values()}
        assert masks.full(200, MAX_SIZE).kept not in kept

    def test_all_of_a_seed_begin_from_its_reference(
        self, plan: Plan, trained: tuple[Path, Reference], sweep_config: Call, finish_all: Call
    ) -> None:
        """One that begins from a reference trains none of its own; for a seed without one it has to."""
        found = plan()
        (reference,) = {work.folder.root for work in found.references.values()}
        assert {work.reference.root for work in found.trainings.values() if work.reference} == {reference}
        assert all(work.reference for work in found.trainings.values())
        finish_all(found, trained[1], searched_best)
        assert all(work.reference and work.reference.root == reference for work in found.tables({}).values())
        more = sweep_config(methods=("equal",), seeds=(0, 1))
        failed = {name: "gone" for name in more.searches if name != W2}
        of_seeds = {work.spec.seed: work.reference for work in plan(config=more, failures=failed).trainings.values()}
        assert of_seeds[0] is not None and of_seeds[1] is None

    def test_a_method_given_twice_is_one(
        self, plan: Plan, trained: tuple[Path, Reference], sweep_config: Call, finish_all: Call
    ) -> None:
        """Rows of a table that stood twice in results.parquet would pass for two seeds."""
        found = plan(config=sweep_config(methods=("equal", "full", "equal", "full")))
        finish_all(found, trained[1], searched_best)
        tables = [table.name for work in found.tables({}).values() for table in work.tables]
        assert len(tables) == len(set(tables))


class TestTables:
    def test_their_names_and_places(self, plan: Plan, trained: tuple[Path, Reference], finish_all: Call) -> None:
        found = plan()
        finish_all(found, trained[1], searched_best)
        tables = found.tables({})
        assert set(names(tables)) == {
            *(f"ciess-c{c}-{variant}-s0" for c in (50, 75) for variant in (V2, V8)),
            *(f"{method}-c{c}-lightgcn-s0" for c in (50, 75) for method in ("equal", "mixed")),
            "full-lightgcn-s0",
        }
        for key, work in tables.items():
            assert [folder.root for folder in work.folders] == [
                f"{found.sweep.root}/tables/{table.name}" for table in work.tables
            ]
            assert work.folder.root == f"{found.sweep.root}/trainings/{key}/table"
            assert len({table.mask.sizes.tobytes() for table in work.tables}) == 1

    def test_tables_of_one_mask_are_tested_once(
        self, plan: Plan, trained: tuple[Path, Reference], finish_all: Call
    ) -> None:
        found = plan()
        finish_all(found, trained[1], equal_best)
        works = names(found.tables({}))
        assert works[f"ciess-c50-{V2}-s0"] is works[f"ciess-c50-{V8}-s0"] is works["equal-c50-lightgcn-s0"]
        assert works[f"ciess-c50-searched-{V2}-s0"] is works[f"ciess-c50-searched-{V8}-s0"]
        assert works["equal-c50-lightgcn-s0"] is not works["equal-c75-lightgcn-s0"]
        assert works["mixed-c50-lightgcn-s0"] is not works["equal-c50-lightgcn-s0"]

    def test_equal_sizes_that_won_are_flagged_and_the_searched_mask_stands_beside(
        self, plan: Plan, trained: tuple[Path, Reference], planted: Planted, sizes_of: Call, finish_all: Call
    ) -> None:
        found = plan()
        finish_all(found, trained[1], equal_best)
        works = names(found.tables({}))
        tables = {table.name: table for work in works.values() for table in work.tables}
        won, own = tables[f"ciess-c50-{V2}-s0"], tables[f"ciess-c50-searched-{V2}-s0"]
        assert (won.flag, own.flag) == (EQUAL_WON, None)
        assert (won.mask.sizes == 8).all()
        assert own.mask.sizes.tobytes() == sizes_of(planted.data, 8, 7).tobytes()
        assert (won.search["search_id"], won.search["mask"]) == (W2, "equal sizes of 8")
        assert (own.search["search_id"], own.search["mask"]) == (W2, "episode 1, iteration 1, lane 0")
        assert tables["equal-c50-lightgcn-s0"].flag is None
        assert not tables["equal-c50-lightgcn-s0"].search

    def test_the_best_of_several_by_full_training(
        self,
        plan: Plan,
        trained: tuple[Path, Reference],
        planted: Planted,
        sweep_config: Call,
        sizes_of: Call,
        finish_all: Call,
    ) -> None:
        """Not by the short fit: there the first one was better."""
        found = plan(config=sweep_config(candidates=2, memory_weights=(0.2,)))
        finish_all(found, trained[1], lambda mask: 0.75 if mask.sizes.max() == 3 else 0.5)
        works = names(found.tables({}))
        table = next(t for t in works[f"ciess-c50-{V2}-s0"].tables if t.name == f"ciess-c50-{V2}-s0")
        assert table.mask.sizes.tobytes() == sizes_of(planted.data, 2, 3).tobytes()
        rows = found.searches[W2].folder.read_table("retrained.parquet").to_pylist()
        chosen = {(row["target_sparsity"], row["mask"]) for row in rows if row["selected"]}
        assert chosen == {(0.5, mask_key(table.mask)), (0.75, mask_key(table.mask))}
        # Three masks for 50 %: two of the search and equal sizes; two for 75 %.
        assert [row["target_sparsity"] for row in rows] == [0.5] * 3 + [0.75] * 2

    def test_what_a_training_found_goes_to_its_table(
        self, plan: Plan, trained: tuple[Path, Reference], finish_all: Call
    ) -> None:
        found = plan()
        finish_all(found, trained[1], searched_best)
        tables = found.tables({})
        for key, training in found.trainings.items():
            if key in tables:
                chosen = tables[key].chosen
                assert chosen.epoch == training.spec.mask.kept % 7 + 1
                assert chosen.means["Recall@20"] == searched_best(training.spec.mask)
                assert (chosen.history, chosen.seconds) == ((EpochRecord(chosen.epoch, 0.5, 0.25),), 3.0)
                assert chosen.user_quality.dtype == np.float32

    def test_full_is_the_reference(self, plan: Plan, trained: tuple[Path, Reference], finish_all: Call) -> None:
        plan_, known = plan(), trained[1]
        finish_all(plan_, known, searched_best)
        work = names(plan_.tables({}))["full-lightgcn-s0"]
        chosen = work.chosen
        assert (chosen.epoch, chosen.means, chosen.seconds) == (known.epochs, known.metrics, known.seconds)
        assert chosen.history == known.history
        np.testing.assert_array_equal(chosen.user_quality, known.quality[:120])
        assert work.tables[0].mask.sizes.min() == MAX_SIZE

    def test_only_the_methods_asked_for(
        self, plan: Plan, trained: tuple[Path, Reference], sweep_config: Call, finish_all: Call
    ) -> None:
        found = plan(config=sweep_config(methods=(), memory_weights=(0.2,), sparsities=(0.5,)))
        finish_all(found, trained[1], searched_best)
        assert set(names(found.tables({}))) == {f"ciess-c50-{V2}-s0"}


class TestAbsences:
    def test_a_budget_that_no_mask_keeps(
        self,
        plan: Plan,
        trained: tuple[Path, Reference],
        planted: Planted,
        sizes_of: Call,
        candidate: Call,
        finish_all: Call,
    ) -> None:
        found = plan({W2: [candidate(sizes_of(planted.data, 8, 7), 1)]})
        finish_all(found, trained[1], searched_best)
        works = names(found.tables({}))
        (absence,) = found.absences
        assert (absence.search, absence.sparsity, absence.reason) == (W2, 0.75, UNMET)
        assert absence.text == (
            "No mask of this search keeps a sparsity of 0.75: the sparsest one visited has 0.525 (episode 1, iteration "
            "1, lane 0). Expected one at least as sparse. Search with a larger --memory-weight or more episodes, or "
            "with --budget-mode target --targets 0.75; or project the best mask to the budget with --project."
        )
        assert f"ciess-c75-{V2}-s0" not in works
        assert {f"ciess-c50-{V2}-s0", f"ciess-c75-{V8}-s0", "equal-c75-lightgcn-s0"} <= set(works)

    def test_a_search_that_failed_is_missing_at_every_budget(
        self, plan: Plan, trained: tuple[Path, Reference], finish_all: Call
    ) -> None:
        found = plan(failures={W2: "The loss is nan."})
        assert found.absences == [Absence(W2, c, FAILED, "The loss is nan.") for c in (0.5, 0.75)]
        finish_all(found, trained[1], searched_best)
        assert {name for name in names(found.tables({})) if name.startswith("ciess")} == {
            f"ciess-c{c}-{V8}-s0" for c in (50, 75)
        }

    def test_a_training_that_failed_marks_what_it_was_for(
        self,
        plan: Plan,
        trained: tuple[Path, Reference],
        planted: Planted,
        sizes_of: Call,
        candidate: Call,
        plain: Call,
        finish: Call,
    ) -> None:
        """A choice without one of its masks would be another choice."""
        found = plan({W2: [candidate(sizes_of(planted.data, 7, 7), 1, 0.9), plain(planted.data)[1]]})
        (lost,) = [key for key, work in found.trainings.items() if (work.spec.mask.sizes == 7).all()]
        for key, work in found.trainings.items():
            if key != lost:
                finish(work, trained[1], 0.5, planted.data.n_users)
        works = names(found.tables({lost: "out of memory"}))
        assert found.absences == [Absence(W2, 0.5, FAILED, "out of memory")]
        assert f"ciess-c50-{V2}-s0" not in works
        assert {f"ciess-c75-{V2}-s0", f"ciess-c50-{V8}-s0", "equal-c50-lightgcn-s0"} <= set(works)

    def test_a_method_whose_training_failed_has_no_table(
        self, plan: Plan, trained: tuple[Path, Reference], finish: Call
    ) -> None:
        found = plan()
        (lost,) = [key for key, work in found.trainings.items() if work.spec.name == "mixed-c75-lightgcn-s0"]
        for key, work in found.trainings.items():
            if key != lost:
                finish(work, trained[1], 0.5, 120)
        works = names(found.tables({lost: "out of memory"}))
        assert "mixed-c75-lightgcn-s0" not in works
        assert "mixed-c50-lightgcn-s0" in works
        assert found.absences == []

    def test_without_its_reference_there_is_no_full_table(
        self, plan: Plan, trained: tuple[Path, Reference], sweep_config: Call, finish_all: Call
    ) -> None:
        """And the driver does not train it by itself."""
        config = sweep_config(seeds=(0, 1), memory_weights=(0.2,), methods=("full", "equal"), sparsities=(0.5,))
        failed = {name: "its reference failed: nan" for name in config.searches if name.endswith("-s1")}
        found = plan(config=config, failures=failed)
        finish_all(found, trained[1], searched_best)
        assert set(names(found.tables({}))) == {
            f"ciess-c50-{V2}-s0",
            "full-lightgcn-s0",
            "equal-c50-lightgcn-s0",
            "equal-c50-lightgcn-s1",
        }
