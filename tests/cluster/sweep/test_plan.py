"""What follows from searches whose masks are written here by hand: what is trained, chosen, tested and missing."""

import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from ciess import masks
from ciess.cluster.config import ClusterConfig
from ciess.cluster.sweep.config import SweepConfig
from ciess.cluster.sweep.plan import FAILED, UNMET, Absence, RetrainingPlan
from ciess.cluster.sweep.work import MethodWork, ReferenceWork, SearchWork, TableWork, TrainingWork
from ciess.config.data import DataConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.methods import METHODS
from ciess.methods.learned_masks import LearnedMasks
from ciess.methods.method import Method
from ciess.retraining.choice import mask_key
from ciess.search import reference as reference_module
from ciess.search.candidates import Candidate, to_table
from ciess.search.reference import Reference, train_reference
from ciess.storage.columns import EQUAL_WON
from ciess.storage.storage import Storage
from ciess.tables.spec import TableSpec
from ciess.training.history import EpochRecord, history_table

MAX_SIZE = 16
W2, W8 = "lightgcn-w0.2-gaussian-walk-s0", "lightgcn-w0.8-gaussian-walk-s0"
V2, V8 = "lightgcn-w0.2-gaussian-walk", "lightgcn-w0.8-gaussian-walk"


def sweep_config(**changes: Any) -> SweepConfig:
    plain: dict[str, Any] = {
        "memory_weights": (0.2, 0.8),
        "sparsities": (0.5, 0.75),
        "episodes": 2,
        "iterations": 2,
        "max_size": MAX_SIZE,
        "candidates": 1,
        "settings": ("training.max-epochs=2", "training.evaluate-every=1", "training.batch-size=500", "device=cpu"),
    }
    return SweepConfig(**plain | changes)


@pytest.fixture(scope="module")
def trained(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    """The reference of every search, and its folder."""
    folder = tmp_path_factory.mktemp("reference")
    config = next(iter(sweep_config().searches.values()))
    return folder, train_reference(planted.data, config.recommender(), 0, Storage(folder))


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch, trained: tuple[Path, Reference]) -> None:
    """A plan is made by the driver, which must train nothing."""

    def refuse(*_: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(reference_module, "fit", refuse)


def sizes_of(data: Interactions, users: int, items: int) -> npt.NDArray[np.int16]:
    return np.where(np.arange(data.n) < data.n_users, users, items).astype(np.int16)


def candidate(sizes: npt.NDArray[np.int16], iteration: int, ratio: float = 0.5) -> Candidate:
    mask = PrefixMask(sizes, MAX_SIZE)
    return Candidate(1, iteration, 0, float(masks.sparsity(mask)), ratio, ratio, ratio / 2, "search", mask)


Plan = Callable[..., RetrainingPlan]


@pytest.fixture
def plan(planted: Planted, trained: tuple[Path, Reference], tmp_path: Path) -> Plan:
    """plan(masks by search, failures, config): of a sweep directory with these searches and their reference."""
    data = planted.data

    def make(
        visited: dict[str, list[Candidate]] | None = None,
        failures: dict[str, str] | None = None,
        config: SweepConfig | None = None,
    ) -> RetrainingPlan:
        config, sweep = config or sweep_config(), Storage(tmp_path / "sweep")
        references: dict[str, ReferenceWork] = {}
        searches: dict[str, SearchWork] = {}
        for name, search in config.searches.items():
            label = f"{search.backbone}-s{search.seed}"
            folder = sweep.child("references", label)
            references[label] = ReferenceWork(folder, search.recommender(), search.seed)
            run = sweep.child("searches", name)
            if search.backbone == "lightgcn" and search.seed == 0:
                for place in (folder, run.child("reference")):
                    shutil.copytree(trained[0], place.root, dirs_exist_ok=True)
            seen = (visited or {}).get(name, plain(data))
            run.write_table("candidates.parquet", to_table(seen, data.n))
            searches[name] = SearchWork(name, run, search, folder, DataConfig(), ClusterConfig())
        learned = {
            f"lightgcn-{method}-s0": MethodWork(
                sweep.child("learned", f"lightgcn-{method}-s0"),
                method,
                config.methods_of(references["lightgcn-s0"].config),
                0,
                [masks.exact(c) for c in config.sparsities],
            )
            for method in config.methods
            if METHODS[method].learned
        }
        return RetrainingPlan(data, config, sweep, references, searches, failures or {}, learned)

    return make


def plain(data: Interactions) -> list[Candidate]:
    """The best of 50 % keeps 80 %, too, as few do; another keeps 50 % alone."""
    return [candidate(sizes_of(data, 8, 7), 1, 0.9), candidate(sizes_of(data, 2, 3), 2, 0.6)]


def finish(work: TrainingWork, found: Reference, share: float, n_users: int, epoch: int = 2) -> None:
    """As if it had been trained, and served each user this share of what the reference does."""
    quality = (found.quality[:n_users] * np.float32(share)).astype(np.float32)
    work.folder.write_table("quality.parquet", pa.table({"quality": quality}))
    work.folder.write_table("history.parquet", history_table([EpochRecord(epoch, 0.5, 0.25)]))
    means = {"quality": float(quality.mean()), "Recall@20": share}
    work.folder.write_json("chosen.json", {"means": means, "epoch": epoch, "seconds": 3.0})


def finish_all(plan: RetrainingPlan, found: Reference, share: Callable[[PrefixMask], float]) -> None:
    for work in plan.trainings.values():
        assert isinstance(work.spec.mask, PrefixMask)
        finish(work, found, share(work.spec.mask), plan.data.n_users, epoch=int(work.spec.mask.kept % 7 + 1))


def names(tables: dict[str, TableWork]) -> dict[str, TableWork]:
    """The table works by the names of their tables."""
    return {table.name: work for work in tables.values() for table in work.tables}


def searched_best(mask: PrefixMask) -> float:
    """Masks of one size serve worse than others."""
    return 0.5 if mask.sizes.min() == mask.sizes.max() else 0.75


def equal_best(mask: PrefixMask) -> float:
    return 0.75 if mask.sizes.min() == mask.sizes.max() else 0.5


class TestTrainings:
    def test_a_mask_that_many_ask_for_is_trained_once(self, plan: Plan, planted: Planted) -> None:
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

    def test_a_mask_is_trained_anew_for_another_seed_and_backbone(self, plan: Plan) -> None:
        config = sweep_config(methods=("equal",), sparsities=(0.5,), memory_weights=(0.2,))
        one = len(plan(config=config).trainings)
        # What is not finished stands as a failed search; the methods need no search.
        more = config.model_copy(update={"seeds": (0, 1), "backbones": ("lightgcn", "ncf")})
        failed = {name: "gone" for name in more.searches if name != W2}
        assert len(plan(config=more, failures=failed).trainings) == one + 3

    def test_full_is_trained_by_no_one(self, plan: Plan) -> None:
        kept = {work.spec.mask.kept for work in plan().trainings.values()}
        assert masks.full(200, MAX_SIZE).kept not in kept

    def test_a_method_given_twice_is_one(self, plan: Plan, trained: tuple[Path, Reference]) -> None:
        """Rows of a table that stood twice in results.parquet would pass for two seeds."""
        found = plan(config=sweep_config(methods=("equal", "full", "equal", "full")))
        finish_all(found, trained[1], searched_best)
        tables = [table.name for work in found.tables({}).values() for table in work.tables]
        assert len(tables) == len(set(tables))


class TestTables:
    def test_their_names_and_places(self, plan: Plan, trained: tuple[Path, Reference]) -> None:
        found = plan()
        finish_all(found, trained[1], searched_best)
        tables = found.tables({})
        assert set(names(tables)) == {
            *(f"ciess-c{c}-{variant}-s0" for c in (50, 75) for variant in (V2, V8)),
            *(f"{method}-c{c}-lightgcn-s0" for c in (50, 75) for method in ("equal", "mixed")),
            "full-lightgcn-s0",
        }
        for key, work in tables.items():
            assert [place.root for place in work.places] == [
                f"{found.sweep.root}/tables/{table.name}" for table in work.tables
            ]
            assert work.folder.root == f"{found.sweep.root}/trainings/{key}/table"
            assert len({table.mask.sizes.tobytes() for table in work.tables}) == 1

    def test_tables_of_one_mask_are_tested_once(self, plan: Plan, trained: tuple[Path, Reference]) -> None:
        found = plan()
        finish_all(found, trained[1], equal_best)
        works = names(found.tables({}))
        assert works[f"ciess-c50-{V2}-s0"] is works[f"ciess-c50-{V8}-s0"] is works["equal-c50-lightgcn-s0"]
        assert works[f"ciess-c50-searched-{V2}-s0"] is works[f"ciess-c50-searched-{V8}-s0"]
        assert works["equal-c50-lightgcn-s0"] is not works["equal-c75-lightgcn-s0"]
        assert works["mixed-c50-lightgcn-s0"] is not works["equal-c50-lightgcn-s0"]

    def test_equal_sizes_that_won_are_flagged_and_the_searched_mask_stands_beside(
        self, plan: Plan, trained: tuple[Path, Reference], planted: Planted
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
        self, plan: Plan, trained: tuple[Path, Reference], planted: Planted
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

    def test_what_a_training_found_goes_to_its_table(self, plan: Plan, trained: tuple[Path, Reference]) -> None:
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

    def test_full_is_the_reference(self, plan: Plan, trained: tuple[Path, Reference]) -> None:
        plan_, known = plan(), trained[1]
        finish_all(plan_, known, searched_best)
        work = names(plan_.tables({}))["full-lightgcn-s0"]
        chosen = work.chosen
        assert (chosen.epoch, chosen.means, chosen.seconds) == (known.epochs, known.metrics, known.seconds)
        assert chosen.history == known.history
        np.testing.assert_array_equal(chosen.user_quality, known.quality[:120])
        assert work.tables[0].mask.sizes.min() == MAX_SIZE

    def test_only_the_methods_asked_for(self, plan: Plan, trained: tuple[Path, Reference]) -> None:
        found = plan(config=sweep_config(methods=(), memory_weights=(0.2,), sparsities=(0.5,)))
        finish_all(found, trained[1], searched_best)
        assert set(names(found.tables({}))) == {f"ciess-c50-{V2}-s0"}


class TestAbsences:
    def test_a_budget_that_no_mask_keeps(self, plan: Plan, trained: tuple[Path, Reference], planted: Planted) -> None:
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

    def test_a_search_that_failed_is_missing_at_every_budget(self, plan: Plan, trained: tuple[Path, Reference]) -> None:
        found = plan(failures={W2: "The loss is nan."})
        assert found.absences == [Absence(W2, c, FAILED, "The loss is nan.") for c in (0.5, 0.75)]
        finish_all(found, trained[1], searched_best)
        assert {name for name in names(found.tables({})) if name.startswith("ciess")} == {
            f"ciess-c{c}-{V8}-s0" for c in (50, 75)
        }

    def test_a_training_that_failed_marks_what_it_was_for(
        self, plan: Plan, trained: tuple[Path, Reference], planted: Planted
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

    def test_a_method_whose_training_failed_has_no_table(self, plan: Plan, trained: tuple[Path, Reference]) -> None:
        found = plan()
        (lost,) = [key for key, work in found.trainings.items() if work.spec.name == "mixed-c75-lightgcn-s0"]
        for key, work in found.trainings.items():
            if key != lost:
                finish(work, trained[1], 0.5, 120)
        works = names(found.tables({lost: "out of memory"}))
        assert "mixed-c75-lightgcn-s0" not in works
        assert "mixed-c50-lightgcn-s0" in works
        assert found.absences == []

    def test_without_its_reference_there_is_no_full_table(self, plan: Plan, trained: tuple[Path, Reference]) -> None:
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


class TestLearnedMethods:
    """Their masks are found by trials of their own; here one that is made up has written them already."""

    @pytest.fixture
    def found(self, planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """found("pep"): as if its trial had ended; no method may run from then on."""

        def compress(
            data: Interactions, config: Any, budgets: Sequence[Fraction], seed: int, learning: Any = None
        ) -> list[TableSpec]:
            ones = [np.random.default_rng(c.denominator).random((data.n, MAX_SIZE)) < 1 - float(c) for c in budgets]
            return [
                TableSpec("pep", SparseMask.from_dense(one, MAX_SIZE), seed, c, flag="forced")
                for one, c in zip(ones, budgets, strict=True)
            ] or [TableSpec("esapn", PrefixMask(sizes_of(data, 3, 5), MAX_SIZE), seed)]

        def refuse(*_: Any, **__: Any) -> list[TableSpec]:
            raise AssertionError("a method ran in the driver")

        def make(method: str, config: SweepConfig) -> None:
            precise = method == "pep"
            settings = config.methods_of(config.searches[W2].recommender())
            folder = Storage(tmp_path / "sweep" / "learned" / f"lightgcn-{method}-s0")
            monkeypatch.setitem(METHODS, method, Method(compress, learned=True, precise=precise))
            LearnedMasks(method, planted.data, settings, 0, folder).learn([masks.exact(c) for c in config.sparsities])
            monkeypatch.setitem(METHODS, method, Method(refuse, learned=True, precise=precise))

        return make

    def test_their_masks_are_trained_and_tested_like_all_others(
        self, plan: Plan, found: Callable[..., None], trained: tuple[Path, Reference], planted: Planted
    ) -> None:
        config = sweep_config(methods=("pep", "esapn"))
        for method in config.methods:
            found(method, config)
        made = plan(config=config)
        for work in made.trainings.values():
            finish(work, trained[1], 0.5, planted.data.n_users)
        tables = {table.name: table for work in made.tables({}).values() for table in work.tables}
        assert {name for name in tables if not name.startswith("ciess")} == {
            "pep-c50-lightgcn-s0",
            "pep-c75-lightgcn-s0",
            "esapn-lightgcn-s0",
        }
        assert isinstance(tables["pep-c75-lightgcn-s0"].mask, SparseMask)
        assert tables["pep-c75-lightgcn-s0"].flag == "forced"
        assert tables["esapn-lightgcn-s0"].target_sparsity is None
        np.testing.assert_array_equal(tables["esapn-lightgcn-s0"].mask.sizes, sizes_of(planted.data, 3, 5))

    def test_one_that_failed_is_missing_where_it_would_stand(self, plan: Plan, planted: Planted) -> None:
        config = sweep_config(methods=("pep", "esapn"))
        lost = {f"lightgcn-{method}-s0": f"{method} is lost" for method in config.methods}
        assert plan(config=config, failures=lost).absences == [
            Absence("lightgcn-pep-s0", 0.5, FAILED, "pep is lost"),
            Absence("lightgcn-pep-s0", 0.75, FAILED, "pep is lost"),
            Absence("lightgcn-esapn-s0", None, FAILED, "esapn is lost"),
        ]
