import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess.config.fit import FitConfig
from ciess.config.models import WITHOUT_USERS
from ciess.data import Interactions, Pairs
from ciess.data.planted import Planted
from ciess.errors import DataError, FitError, RunDirectoryError
from ciess.evaluation.metrics import evaluate
from ciess.evaluation.ranking import PairLookup
from ciess.masks.budget import sparsity
from ciess.masks.mask import Mask, PrefixMask, SparseMask
from ciess.methods import METHODS
from ciess.methods.journal import Journal, Row
from ciess.methods.optembed.evolution import Generation
from ciess.methods.optembed.optembed import Stages, mask_of, optembed
from ciess.models import BACKBONES
from ciess.storage.columns import RESULTS
from ciess.storage.storage import Storage
from ciess.tables.spec import TableSpec
from ciess.training.fit import fit
from ciess.training.loop import FitRequest, build
from ciess.training.prepared import prepare

Config = Callable[..., FitConfig]
every_backbone = pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in WITHOUT_USERS])
CPU = torch.device("cpu")
QUICK = {"max_epochs": 4, "patience": 9, "population": 6, "generations": 4, "mutations": 3, "crossovers": 3}
DROPS = {
    backbone: {"threshold_learning_rate": 1.0, "threshold_penalty": penalty}
    for backbone, penalty in (("lightgcn", 0.25), ("ngcf", 0.12), ("ncf", 0.12))
}
"""Thresholds that drop some rows of every field in four epochs of the planted data, and leave some."""
SIDES = {
    "lightgcn": ("user", "item"),
    "ngcf": ("user", "item"),
    "ncf": ("user_gmf", "item_gmf", "user_tower", "item_tower"),
}


@pytest.fixture
def config(small_config: Callable[..., Any]) -> Config:
    """config(backbone, **optembed): QUICK, but for what is given."""

    def make(backbone: str = "lightgcn", **optembed: Any) -> FitConfig:
        plain = small_config(backbone, learning_rate=5e-4 if backbone == "ncf" else 0.01)
        return FitConfig.model_validate(plain.model_dump() | {"optembed": QUICK | optembed})

    return make


@pytest.fixture(scope="module")
def data(planted: Planted) -> Interactions:
    return planted.data


def learned(data: Interactions, config: FitConfig, seed: int = 0, **journal: Any) -> tuple[TableSpec, list[Row]]:
    history = Journal(**journal)
    (table,) = optembed(data, config, [Fraction(9, 10)], seed, history)
    return table, history.rows


def bits(mask: Mask) -> list[bytes]:
    parts = [mask.sizes] if isinstance(mask, PrefixMask) else [mask.indptr, mask.columns]
    return [part.tobytes() for part in parts]


def dense(mask: Mask, tables: int) -> Any:
    """bool[n, tables, max_size]."""
    own = mask.tables if isinstance(mask, SparseMask) else 1
    kept = mask.dense().reshape(-1, own, mask.max_size)
    return np.broadcast_to(kept, (len(kept), tables, mask.max_size))


class Stopped(Exception):
    """Stands for whatever ends a process."""


class TestOutcome:
    @every_backbone
    def test_one_table_whatever_the_budgets(self, data: Interactions, config: Config, backbone: str) -> None:
        """Its rows are the first d columns of their field, or nothing; its numbers are those of the history's end."""
        settings = config(backbone, **DROPS[backbone])
        (table,) = optembed(data, settings, [Fraction(4, 5), Fraction(9, 10)], 1)
        (again,) = optembed(data, settings, [], 1)
        assert bits(table.mask) == bits(again.mask)
        assert (table.method, table.seed, table.target_sparsity, table.initial) == ("optembed", 1, None, {})
        assert not set(table.search) & set(RESULTS.names)
        assert isinstance(table.mask, SparseMask if backbone == "ncf" else PrefixMask)
        tables = BACKBONES[backbone].tables
        kept = dense(table.mask, tables)
        for number, name in enumerate(SIDES[backbone]):
            rows = slice(data.n_users) if number % 2 == 0 else slice(data.n_users, None)
            sizes = kept[rows, number // 2].sum(1)
            size, dropped = table.search[f"size_{name}"], table.search[f"dropped_{name}"]
            assert set(sizes.tolist()) <= {0, size}
            assert 0 < (sizes == 0).sum() == dropped < len(sizes)
            assert (np.diff(kept[rows, number // 2].astype(int), axis=1) <= 0).all()

    def test_every_table_of_ncf_has_a_size_of_its_own(self, data: Interactions, config: Config) -> None:
        table, _ = learned(data, config("ncf", generations=8))
        assert len({table.search[f"size_{name}"] for name in SIDES["ncf"]}) > 2

    @every_backbone
    def test_one_size_an_entity(self, data: Interactions, config: Config, backbone: str) -> None:
        table, rows = learned(data, config(backbone, per_entity=True, **DROPS[backbone]))
        sizes = dense(table.mask, BACKBONES[backbone].tables).sum(2)
        for name, number in zip(SIDES[backbone], range(4), strict=False):
            own = sizes[: data.n_users, number // 2] if number % 2 == 0 else sizes[data.n_users :, number // 2]
            assert len(set(own.tolist())) > 8
            assert 0 < (own == 0).sum() == table.search[f"dropped_{name}"]
        assert float(sparsity(table.mask)) == pytest.approx(rows[-1]["sparsity"])

    def test_without_thresholds_no_row_is_dropped(self, data: Interactions, config: Config) -> None:
        table, rows = learned(data, config(thresholds=False, **DROPS["lightgcn"]))
        assert isinstance(table.mask, PrefixMask)
        assert table.mask.sizes.min() > 0
        assert not any("threshold" in name for row in rows for name in row)

    def test_is_a_learned_method_without_precise_budgets(self) -> None:
        assert METHODS["optembed"].compress is optembed
        assert METHODS["optembed"].learned
        assert not METHODS["optembed"].precise


class TestMask:
    def test_one_table(self) -> None:
        mask = mask_of(np.array([[3], [0], [4]], np.int16), 4)
        assert isinstance(mask, PrefixMask)
        assert mask.sizes.tolist() == [3, 0, 4]

    def test_two_tables_that_agree(self) -> None:
        mask = mask_of(np.array([[3, 3], [0, 0]], np.int16), 4)
        assert isinstance(mask, PrefixMask)
        assert mask.sizes.tolist() == [3, 0]

    def test_two_tables(self) -> None:
        mask = mask_of(np.array([[3, 1], [0, 4]], np.int16), 4)
        assert isinstance(mask, SparseMask)
        assert mask.tables == 2
        assert mask.dense().astype(int).tolist() == [[1, 1, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]
        assert sparsity(mask) == Fraction(1, 2)


class TestSupernetStage:
    def test_ends_at_the_first_drop(self, data: Interactions, config: Config) -> None:
        _, rows = learned(data, config(patience=1, max_epochs=200))
        qualities = [row["quality"] for row in rows if row["stage"] == "supernet"]
        assert len(qualities) < 200
        assert (np.diff(qualities[:-1]) > 0).all()
        assert qualities[-1] <= qualities[-2]

    def test_patience_waits_for_better_epochs(self, data: Interactions, config: Config) -> None:
        _, rows = learned(data, config(patience=4, max_epochs=200))
        qualities = [row["quality"] for row in rows if row["stage"] == "supernet"]
        best = int(np.argmax(qualities))
        assert len(qualities) == best + 1 + 4
        running = np.maximum.accumulate(qualities[: best + 1])
        gaps = np.diff(np.flatnonzero(np.diff(running, prepend=-1)))
        assert gaps.max() <= 4

    def test_max_epochs(self, data: Interactions, config: Config) -> None:
        table, rows = learned(data, config(patience=200, max_epochs=7))
        assert [row["step"] for row in rows if row["stage"] == "supernet"] == list(range(1, 8))
        assert table.search["supernet_epochs"] == 7

    def test_thresholds_that_drop_everything_are_an_error(self, data: Interactions, config: Config) -> None:
        with pytest.raises(FitError, match="The threshold has dropped every row of the field user, but some must be"):
            learned(data, config(threshold_learning_rate=100.0, threshold_penalty=100.0))

    def test_data_without_validation(self, data: Interactions, config: Config) -> None:
        empty = dataclasses.replace(data, valid=Pairs.sorted(np.array([], np.int64), np.array([], np.int64)))
        with pytest.raises(DataError, match=r"^planted has 0 validation pairs, but one or more were expected"):
            learned(empty, config())

    def test_test_pairs_change_nothing(self, data: Interactions, config: Config) -> None:
        blind = dataclasses.replace(data, test=Pairs.sorted(np.array([0]), np.array([0])))
        expected, rows = learned(data, config())
        found, same = learned(blind, config())
        assert bits(found.mask) == bits(expected.mask)
        assert same == rows


class TestEvolutionStage:
    @pytest.mark.parametrize("per_entity", [False, True])
    @every_backbone
    def test_fitness_is_the_validation_quality_under_the_candidates_mask(
        self, data: Interactions, config: Config, backbone: str, per_entity: bool
    ) -> None:
        """Encoded and ranked anew from the full-width table times a mask of zeros and ones."""
        stages = Stages(data, config(backbone, per_entity=per_entity, **DROPS[backbone]), 0, Journal())
        stages.train()
        stages.freeze()
        tables, model = BACKBONES[backbone].tables, stages.training.backbone
        shape = (data.n, tables) if per_entity else (2 * tables,)
        candidate = np.random.default_rng(1).integers(1, 13, shape).astype(np.int16)
        sizes = (
            candidate
            if per_entity
            else np.array([[candidate[2 * k + (row >= data.n_users)] for k in range(tables)] for row in range(data.n)])
        )
        weight = stages.supernet.weight.detach()
        norms = weight.abs().sum(2) / stages.supernet.scale[stages.supernet.fields]
        kept = (norms > stages.supernet.thresholds.detach()[stages.supernet.fields])[:, :, None]
        assert 0 < kept.sum() < kept.numel()
        inside = torch.from_numpy(np.arange(16) < sizes[:, :, None])
        table = (weight * inside * kept).reshape(data.n, -1)
        model.eval()
        with torch.no_grad():
            encoded = model.encode(table, prepare(data, CPU).graph(model.normalisation))
            lookups = [PairLookup(pairs, data.n_users, data.n_items, CPU) for pairs in (data.train, data.valid)]
            expected = evaluate(lambda users: model.score_all(encoded, users), lookups[:1], lookups[1]).mean_quality()
        assert stages.fitness(candidate.ravel()) == pytest.approx(expected, abs=1e-4)

    @every_backbone
    def test_full_sizes_are_worth_what_the_best_epoch_was(
        self, data: Interactions, config: Config, backbone: str
    ) -> None:
        stages = Stages(data, config(backbone, max_epochs=8), 0, Journal())
        stages.train()
        stages.freeze()
        assert stages.fitness(np.full(len(SIDES[backbone]), 16, np.int16)) == stages.best_quality
        assert stages.best_quality == max(row["quality"] for row in stages.journal.rows)

    @every_backbone
    def test_leaves_the_supernet_as_it_is(self, data: Interactions, config: Config, backbone: str) -> None:
        stages = Stages(data, config(backbone, **DROPS[backbone]), 0, Journal())
        stages.train()
        stages.freeze()
        modules = (stages.supernet, stages.training.backbone)
        before = [value.clone() for module in modules for value in module.state_dict().values()]
        stages.evolve()
        after = [value for module in modules for value in module.state_dict().values()]
        assert all(a.equal(b) for a, b in zip(after, before, strict=True))

    def test_takes_the_best_that_it_met(self, data: Interactions, config: Config) -> None:
        """By brute force over all pairs, of which 600 evaluations see every one."""
        settings = config(population=20, generations=30, mutations=10, crossovers=10)
        stages = Stages(data, settings, 0, Journal())
        stages.train()
        stages.freeze()
        found: Generation = stages.evolve()
        best = max(stages.fitness(np.array([a, b], np.int16)) for a in range(1, 17) for b in range(1, 17))
        assert found.fitness[0] == best


class TestInterruption:
    @pytest.mark.parametrize("per_entity", [False, True])
    @every_backbone
    def test_goes_on_as_if_there_had_been_no_break(
        self, data: Interactions, config: Config, backbone: str, per_entity: bool, tmp_path: Path
    ) -> None:
        """Broken off after every line of the history in turn, each time going on from the same folder."""
        settings = config(backbone, per_entity=per_entity, **DROPS[backbone])
        expected, rows = learned(data, settings)
        assert [row["stage"] for row in rows] == ["supernet"] * 4 + ["evolution"] * 4
        folder = Storage(tmp_path)
        for count in (1, 3, 4, 5, 7):

            def stop(row: Row, last: tuple[str, int] = (str(rows[count]["stage"]), int(rows[count]["step"]))) -> None:
                if (row["stage"], row["step"]) == last:
                    raise Stopped

            with pytest.raises(Stopped):
                learned(data, settings, folder=folder, on_row=stop)
        found, history = learned(data, settings, folder=folder)
        assert bits(found.mask) == bits(expected.mask)
        assert dict(found.search) == dict(expected.search)
        assert history == rows

    def test_does_again_only_what_was_not_kept(self, data: Interactions, config: Config, tmp_path: Path) -> None:
        learned(data, config(), folder=Storage(tmp_path))
        shown: list[Row] = []
        learned(data, config(), folder=Storage(tmp_path), on_row=shown.append)
        assert shown == []

    def test_other_settings_are_refused(self, data: Interactions, config: Config, tmp_path: Path) -> None:
        learned(data, config(), folder=Storage(tmp_path), fingerprint="a" * 64)
        with pytest.raises(RunDirectoryError, match="is the checkpoint of another run"):
            learned(data, config(), folder=Storage(tmp_path), fingerprint="b" * 64)


class TestSeeds:
    @every_backbone
    def test_equal_seeds_equal_bits(self, data: Interactions, config: Config, backbone: str) -> None:
        torch.manual_seed(1)
        first, rows = learned(data, config(backbone, **DROPS[backbone]))
        torch.manual_seed(2)
        before = torch.get_rng_state()
        second, same = learned(data, config(backbone, **DROPS[backbone]))
        assert torch.get_rng_state().equal(before)
        assert bits(first.mask) == bits(second.mask)
        assert rows == same

    def test_other_seeds_other_histories(self, data: Interactions, config: Config) -> None:
        assert learned(data, config(), 0)[1] != learned(data, config(), 1)[1]

    def test_starts_from_the_weights_that_the_retraining_starts_from(self, data: Interactions, config: Config) -> None:
        settings = config("ncf")
        stages = Stages(data, settings, 5, Journal())
        backbone, table = build(data, settings.recommender(), 5)
        assert stages.supernet.weight.equal(table)
        for name, value in backbone.named_parameters():
            assert dict(stages.training.backbone.named_parameters())[name].equal(value)


class TestRetraining:
    @every_backbone
    def test_rows_without_columns_train(self, data: Interactions, config: Config, backbone: str) -> None:
        """A third of the rows has none; on a graph their vectors come from their neighbours."""
        settings = config(backbone).recommender()
        sizes = np.where(np.arange(data.n) % 3 == 0, 0, 6).astype(np.int16)
        first, last = (fit(data, FitRequest(settings, PrefixMask(sizes, 16), 0, epochs=n)) for n in (1, 15))
        assert last.history[-1].loss < last.history[0].loss
        assert (last.table[sizes == 0] == 0).all()
        encoded = last.recommender.encoded[torch.from_numpy(sizes == 0)]
        assert torch.isfinite(encoded).all()
        if backbone != "ncf":
            assert (encoded.abs().sum(1) > 0).all()
        assert last.validation is not None
        assert first.validation is not None
        assert last.validation.mean_quality() > first.validation.mean_quality()

    @every_backbone
    def test_what_was_found_trains(self, data: Interactions, config: Config, backbone: str) -> None:
        table, _ = learned(data, config(backbone, **DROPS[backbone]))
        result = fit(data, FitRequest(config(backbone).recommender(), table.mask, table.seed, epochs=10))
        assert result.history[-1].loss < result.history[0].loss
