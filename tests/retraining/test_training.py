"""Selective retraining: what stands for choice, what Eq. 16 chooses, and what is trained for it, no more than once."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from ciess import masks
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import BudgetError
from ciess.masks.mask import PrefixMask
from ciess.retraining.choice import Option, mask_key
from ciess.retraining.retraining import Retraining
from ciess.runs.fit import fit_tables
from ciess.search.candidates import Candidate
from ciess.search.environment import Environment
from ciess.search.reference import Reference, train_reference
from ciess.storage.columns import EQUAL_WON, PROJECTED, RETRAINED
from ciess.storage.storage import Storage
from ciess.tables import protocol
from ciess.tables.table import load
from ciess.training import loop as fit_module
from ciess.training.fit import FitResult, fit
from ciess.training.loop import FitRequest, Training

MAX_SIZE = 16
Row = dict[str, Any]
Start = Callable[..., Retraining]


def settings_of(recommender: RecommenderConfig, **changes: Any) -> SearchConfig:
    fields = {name: getattr(recommender, name) for name in RecommenderConfig.model_fields}
    return SearchConfig(**fields | {"sparsities": (0.8, 0.9), "agent": {"hidden": 16}} | changes)


@pytest.fixture(scope="module")
def small(small_config: Callable[..., RecommenderConfig]) -> Callable[..., RecommenderConfig]:
    """Trainings of 12 epochs at most."""
    return lambda backbone="lightgcn": small_config(
        backbone, learning_rate=0.05, max_epochs=12, evaluate_every=2, patience=2
    )


@pytest.fixture(scope="module")
def config(small: Callable[..., RecommenderConfig]) -> SearchConfig:
    return settings_of(small())


@pytest.fixture(scope="module")
def found(planted: Planted, config: SearchConfig, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return train_reference(
        planted.data, config.recommender(), config.seed, Storage(tmp_path_factory.mktemp("run") / "reference")
    )


def candidate(
    sizes: npt.ArrayLike, ratio: float, iteration: int = 1, origin: str = "search", users: float = 0.5
) -> Any:
    mask = PrefixMask(np.asarray(sizes, np.int16), MAX_SIZE)
    episode = 0 if origin == "equal" else 1
    return Candidate(episode, iteration, 0, float(masks.sparsity(mask)), ratio, users, ratio / 2, origin, mask)


def visited(data: Interactions) -> list[Candidate]:
    """At 80 % equal sizes serve better than any of these, at 90 % two dimensions for users are far the best."""
    n, users = data.n, np.arange(data.n) < data.n_users
    degrees = data.degrees()
    half, rare = np.ones(n), np.ones(n)
    half[data.n_users :][:40] = 4
    rare[np.argsort(degrees, kind="stable")[:120]] = 2
    return [
        candidate(np.full(n, 3), 0.99, 1, "equal"),
        candidate(np.where(users, 1, 2), 0.6, 1),
        candidate(half, 0.65, 2),
        candidate(np.full(n, 10), 0.98, 3),
        candidate(np.where(users, 2, 1), 0.7, 4),
        candidate(rare, 0.5, 5),
    ]


@pytest.fixture
def start(planted: Planted, config: SearchConfig, found: Reference, tmp_path: Path) -> Start:
    """start(sparsity=..., seen=candidates, config=..., data=..., run=...): a retraining in a run directory."""

    def make(seen: list[Candidate] | None = None, **options: Any) -> Retraining:
        data = options.pop("data", planted.data)
        return prepared(
            data,
            options.pop("config", config),
            options.pop("found", found),
            options.pop("run", Storage(tmp_path / "run")),
            visited(data) if seen is None else seen,
            **options,
        )

    return make


def prepared(
    data: Interactions, config: SearchConfig, found: Reference, run: Storage, seen: list[Candidate], **settings: Any
) -> Retraining:
    environment = Environment(
        data.train, data.n_users, data.n_items, MAX_SIZE, found.quality, found.counted, config.zero_reference
    )
    return Retraining(data, config, RetrainConfig(**settings), seen, found, environment, run, "abc")


Epochs = list[tuple[str, int, str, int]]


def watch(monkeypatch: pytest.MonkeyPatch) -> tuple[Epochs, list[str]]:
    """Every epoch that is trained, as (mask, seed, choose or refit, epoch), and every test, as the mask."""
    epochs: Epochs = []
    tests: list[str] = []
    train, test = Training.epoch, protocol.test_metrics

    def spy(self: Training, epoch: int) -> float:
        assert isinstance(self.request.mask, PrefixMask)
        stage = "choose" if self.request.epochs is None else "refit"
        epochs.append((mask_key(self.request.mask), self.request.seed, stage, epoch))
        return train(self, epoch)

    def spy_test(trained_on: Any, config: Any, result: FitResult) -> Any:
        tests.append(f"{len(trained_on.train)}")
        return test(trained_on, config, result)

    monkeypatch.setattr(fit_module.Training, "epoch", spy)
    monkeypatch.setattr(protocol, "test_metrics", spy_test)
    return epochs, tests


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Epochs:
    return watch(monkeypatch)[0]


def rows(run: Storage, **values: Any) -> list[Row]:
    return [
        row
        for row in run.read_table("retrained.parquet").to_pylist()
        if all(row[name] == value for name, value in values.items())
    ]


def results(run: Storage, **values: Any) -> list[Row]:
    """Rows of results.parquet without seconds, sorted."""
    table = run.read_table("results.parquet").drop_columns("seconds").to_pylist()
    found = [row for row in table if all(row[name] == value for name, value in values.items())]
    return sorted(found, key=lambda row: (row["candidate"], row["split"], row["metric"], row["k"] or 0))


def judge(run: Storage, options: list[Option], ratios: list[float], seed: int = 0) -> None:
    """As if an earlier run had found these ratios after full training."""
    found = [
        {"seed": seed, "mask": option.key, "target_sparsity": 0.5, "quality_ratio": ratio, "quality": 0.1, "epochs": 2}
        for option, ratio in zip(options, ratios, strict=True)
    ]
    run.write_table("retrained.parquet", pa.Table.from_pylist(found, schema=RETRAINED))


class TestOptions:
    @pytest.mark.parametrize("include_equal", [True, False])
    @pytest.mark.parametrize("by", ["all", "users"])
    def test_the_best_by_their_short_fits_and_equal_sizes(
        self, planted: Planted, config: SearchConfig, found: Reference, by: str, include_equal: bool
    ) -> None:
        """Beside sorting by hand, where masks are visited twice and ratios are equal now and then."""
        data, generator = planted.data, np.random.default_rng(5)
        degrees = [*data.user_degrees().tolist(), *data.item_degrees().tolist()]
        by_degree = sorted(range(data.n), key=lambda row: (-degrees[row], row))
        refused = 0
        for _ in range(40):
            sparsity, count = generator.choice([0.75, 0.8, 0.85]), int(generator.integers(1, 5))
            pool = [generator.integers(1, 2 * generator.integers(2, 5), data.n).tolist() for _ in range(4)]
            pool.append([int((1 - sparsity) * MAX_SIZE)] * data.n)
            sizes = [pool[place] for place in generator.integers(0, 5, generator.integers(1, 8))]
            ratios = generator.choice([0.25, 0.5, 0.75], (len(sizes), 2)).tolist()
            seen = [
                candidate(mask, ratio, place, users=users)
                for place, (mask, (ratio, users)) in enumerate(zip(sizes, ratios, strict=True))
            ]
            settings = {"candidates": count, "include_equal": include_equal, "candidate_quality": by}
            changed = config.model_copy(update=settings)
            retraining = prepared(data, changed, found, Storage("nowhere"), seen, sparsity=(sparsity,))
            budget = (1 - Fraction(str(sparsity))) * data.n * MAX_SIZE
            kept = [place for place, mask in enumerate(sizes) if sum(mask) <= budget and mask not in sizes[:place]]
            best = sorted(kept, key=lambda place: (-ratios[place][by == "users"], place))[:count]
            if not best:
                refused += 1
                with pytest.raises(BudgetError, match=f"No mask of this search keeps a sparsity of {sparsity:g}"):
                    retraining.options(sparsity)
                continue
            expected = [("search", sizes[place], ratios[place][0]) for place in best]
            least = int(budget) // data.n
            popular = set(by_degree[: int(budget) - data.n * least])
            plain, filled = [least] * data.n, [least + (row in popular) for row in range(data.n)]
            for mask in [plain, filled] if include_equal else []:
                if mask not in [other for _, other, _ in expected]:
                    expected.append(("equal", mask, None))
            options = retraining.options(sparsity)
            assert [(option.origin, option.mask.sizes.tolist(), option.short_ratio) for option in options] == expected
        assert 0 < refused < 20

    def test_the_settings_of_the_retraining_choose_how_many(self, start: Start) -> None:
        for count, places in ((None, [4, 2, 1]), (1, [4]), (9, [4, 2, 1, 5])):
            options = start(candidates=count).options(0.9)
            assert [option.where for option in options if option.origin == "search"] == [
                f"episode 1, iteration {place}, lane 0" for place in places
            ]

    def test_a_mask_stands_once(self, start: Start, planted: Planted) -> None:
        """Also where the search has found equal sizes by itself, which are then its own."""
        n = planted.data.n
        seen = [candidate(np.full(n, 3), 0.5), candidate(np.ones(n), 0.4, 2), candidate(np.full(n, 3), 0.5, 3)]
        options = start(seen).options(0.8)
        assert [(option.origin, option.mask.sizes.max()) for option in options] == [
            ("search", 3),
            ("search", 1),
            ("equal", 4),
        ]
        assert len({option.key for option in options}) == 3

    def test_no_mask_keeps_the_budget(self, start: Start) -> None:
        with pytest.raises(BudgetError) as caught:
            start().options(0.93)
        assert str(caught.value) == (
            "No mask of this search keeps a sparsity of 0.93: the sparsest one visited has 0.9125 (episode 1, "
            "iteration 1, lane 0). Expected one at least as sparse. Search with a larger --memory-weight or more "
            "episodes, or with --budget-mode target --targets 0.93; or project the best mask to the budget with "
            "--project."
        )

    def test_buckets_that_leave_nothing_are_said_as_such(self, start: Start, config: SearchConfig) -> None:
        changed = config.model_copy(update={"candidate_buckets": True})
        with pytest.raises(BudgetError) as caught:
            start(config=changed).options(0.8)
        assert str(caught.value) == (
            "No mask of this search serves a sparsity of 0.8 alone: each that keeps it also keeps a larger one of 0.8, "
            "0.9, and --candidate-buckets gives it to the largest. Expected one between the two. Retrain for the "
            "larger sparsity, or search without --candidate-buckets."
        )

    def test_a_search_without_masks(self, start: Start, planted: Planted, tmp_path: Path) -> None:
        only_equal = [candidate(np.full(planted.data.n, 2), 0.9, 1, "equal")]
        for project in (False, True):
            with pytest.raises(BudgetError) as caught:
                start(only_equal, project=project).options(0.8)
            assert str(caught.value).replace(str(tmp_path), "TMP") == (
                "TMP/run holds no mask of a search; one finished iteration or more was expected. Run `ciess search` "
                "with --resume first."
            )

    def test_a_budget_below_one_dimension_a_row(self, start: Start) -> None:
        with pytest.raises(BudgetError, match="every row keeps at least 1"):
            start(project=True).options(0.95)

    def test_projection(self, start: Start) -> None:
        """Only where no mask keeps the budget; it uses the budget to the last parameter and keeps the order."""
        retraining = start(project=True)
        assert {option.origin for option in retraining.options(0.9)} == {"search", "equal"}
        options = [option for option in retraining.options(0.93) if option.origin != "equal"]
        best = sorted((one for one in retraining.visited if one.origin == "search"), key=lambda one: -one.quality_ratio)
        assert [option.where for option in options] == [f"{one.where}, projected" for one in best[:3]]
        assert [option.short_ratio for option in options] == [0.98, 0.7, 0.65]
        for option, one in zip(options, best[:3], strict=True):
            assert option.origin == PROJECTED
            assert option.mask.kept == int((1 - Fraction("0.93")) * option.mask.total)
            groups = [option.mask.sizes[one.mask.sizes == size] for size in np.unique(one.mask.sizes)]
            assert all(lower.max() <= higher.min() for lower, higher in itertools.pairwise(groups))


@pytest.fixture(scope="module")
def finished(
    planted: Planted, config: SearchConfig, found: Reference, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Retraining, Epochs, list[str]]:
    """Two budgets and the full table, what was trained for them, and what was tested."""
    with pytest.MonkeyPatch.context() as patch:
        epochs, tests = watch(patch)
        run = Storage(tmp_path_factory.mktemp("finished"))
        retraining = prepared(planted.data, config, found, run, visited(planted.data), sparsity=(0.8, 0.9))
        for sparsity in (0.8, 0.9):
            retraining.budget(sparsity, 0)
        retraining.full(0)
    return retraining, epochs, tests


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
        self, finished: tuple[Retraining, Epochs, list[str]], planted: Planted, found: Reference, sparsity: float
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
        self, finished: tuple[Retraining, Epochs, list[str]], planted: Planted
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
        assert {row["metric"] + (f"@{row['k']}" if row["k"] else ""): row["value"] for row in values} == expected
        assert table.recommend(str(data.user_ids[0]), k=3).items

    def test_every_table_and_its_flag(self, finished: tuple[Retraining, Epochs, list[str]]) -> None:
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
        self, finished: tuple[Retraining, Epochs, list[str]]
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
        self, finished: tuple[Retraining, Epochs, list[str]], config: SearchConfig
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
    def test_a_tie_goes_to_the_first(self, start: Start, ratios: list[float]) -> None:
        """To a searched mask before equal sizes, and among searched ones to that of the better short fit."""
        retraining = start(compare=())
        options = retraining.options(0.9)
        judge(retraining.run, options, ratios)
        retraining.budget(0.9, 0)
        first = options[ratios.index(max(ratios))]
        assert [row["where"] for row in rows(retraining.run, selected=True)] == [first.where]
        card = load(retraining.run.child("tables", "ciess-c90-s0")).card
        assert (card["search"]["mask_sha256"], card["flag"]) == (first.key, None)


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
            FitConfig(**alone, method=("full", "equal", "mixed"), sparsity=(0.8,), seeds=(seed,)),
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

    def test_what_is_done_is_not_done_again(self, start: Start, trained: Epochs) -> None:
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

    def test_a_search_that_went_on(self, start: Start, planted: Planted, trained: Epochs) -> None:
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
        assert len(results(second.run, candidate="ciess-c90-s0")) == 14
        assert [row["where"] for row in rows(second.run)] == [option.where for option in second.options(0.9)]

    def test_equal_sizes_that_no_longer_win(self, start: Start, config: SearchConfig) -> None:
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

    def test_a_projected_mask_is_flagged(self, start: Start, config: SearchConfig, planted: Planted) -> None:
        alone = config.model_copy(update={"include_equal": False})
        seen = [one for one in visited(planted.data) if one.iteration != 3]
        retraining = start(seen, compare=(), project=True, candidates=1, config=alone)
        retraining.budget(0.93, 0)
        card = load(retraining.run.child("tables", "ciess-c93-s0")).card
        assert card["flag"] == "projected"
        assert card["search"]["mask"] == "episode 1, iteration 4, lane 0, projected"
        assert {row["flag"] for row in results(retraining.run)} == {"projected"}
        assert card["kept_parameters"] == 224 == int((1 - Fraction("0.93")) * 200 * MAX_SIZE)

    def test_a_projected_mask_beside_equal_sizes_that_won(self, start: Start, planted: Planted) -> None:
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
