"""What every method promises, with every backbone, on planted data."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess import load, masks
from ciess.config.fit import BUDGETED, FitConfig
from ciess.config.models import WITHOUT_USERS
from ciess.config.recommender import RecommenderConfig
from ciess.data import Pairs
from ciess.data.planted import Planted
from ciess.errors import InputError
from ciess.masks.mask import Mask, PrefixMask
from ciess.masks.ragged import kept_entries, pattern
from ciess.methods import METHODS
from ciess.methods.esapn.leveled_embedding import LeveledEmbedding
from ciess.methods.learned_masks import LearnedMasks
from ciess.models import BACKBONES
from ciess.models.chained_embedding import ChainedEmbedding
from ciess.storage.storage import Storage
from ciess.tables.protocol import train_table
from ciess.tables.spec import TableSpec
from ciess.tables.table import CompressedTable
from ciess.training.fit import fit
from ciess.training.loop import FitRequest

BUDGETS = [Fraction(1, 2), Fraction(3, 4)]
SEED = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "pep": {"initial_threshold": -13.0, "learning_rate": 0.1, "max_steps": 150, "check_every": 5},
    "esapn": {
        "sizes": (2, 4, 8, 16),
        "epochs": 3,
        "batch_size": 100,
        "policy_learning_rate": 0.02,
        "initial_stay": 0.0,
    },
    "optembed": {"max_epochs": 2, "population": 4, "generations": 2, "mutations": 2, "crossovers": 2, "parents": 3},
}
LEARN_ROWS = ("pep", "esapn", "optembed")
EVERY = [
    (method, backbone)
    for method in METHODS
    for backbone in BACKBONES
    if not (method in LEARN_ROWS and backbone in WITHOUT_USERS)
]

Config = Callable[..., RecommenderConfig]


def settings(small_config: Config, backbone: str) -> FitConfig:
    plain = small_config(backbone)
    shared = {name: getattr(plain, name) for name in RecommenderConfig.model_fields}
    return FitConfig(**shared, **SETTINGS)  # type: ignore[arg-type]


def tables_of(config: FitConfig) -> int:
    return 2 if config.backbone == "ncf" else 1


def same_masks(first: list[TableSpec], second: list[TableSpec]) -> bool:
    def arrays(tables: list[TableSpec]) -> list[tuple[str, str, bytes]]:
        parts = [(table.name, table.mask) for table in tables]
        return [(name, key, value.tobytes()) for name, mask in parts for key, value in pattern(mask).items()]

    return arrays(first) == arrays(second)


@pytest.fixture(scope="module")
def found(planted: Planted, small_config: Config) -> Callable[[str, str], list[TableSpec]]:
    """found(method, backbone): its tables, made once."""
    made: dict[tuple[str, str], list[TableSpec]] = {}

    def make(method: str, backbone: str) -> list[TableSpec]:
        if (method, backbone) not in made:
            config = settings(small_config, backbone)
            made[method, backbone] = METHODS[method].compress(planted.data, config, BUDGETS, SEED)
        return made[method, backbone]

    return make


Found = Callable[[str, str], list[TableSpec]]


@pytest.mark.parametrize(("method", "backbone"), EVERY)
class TestEveryMethod:
    def test_a_table_a_budget_that_keeps_it_or_says_that_it_does_not(
        self, planted: Planted, small_config: Config, found: Found, method: str, backbone: str
    ) -> None:
        config, tables = settings(small_config, backbone), found(method, backbone)
        targets = [table.target_sparsity for table in tables]
        assert targets == (BUDGETS if method in BUDGETED else [None])
        assert len({table.name for table in tables}) == len(tables)
        for table in tables:
            assert (table.method, table.seed, table.mask.max_size) == (method, SEED, 16)
            kept = kept_entries(table.mask, tables_of(config), 16)
            assert kept.shape == (planted.data.n, 16 * tables_of(config))
            assert 0 < kept.sum() == round(float(1 - masks.sparsity(table.mask)) * kept.size)
            if table.target_sparsity is not None and table.flag != "over budget":
                assert masks.sparsity(table.mask) >= table.target_sparsity

    def test_only_masked_in_entries_are_trained_and_the_saved_table_is_the_trained_one(
        self, planted: Planted, small_config: Config, found: Found, tmp_path: Path, method: str, backbone: str
    ) -> None:
        data, config = planted.data, settings(small_config, backbone).recommender()
        table = found(method, backbone)[-1]
        result = fit(data, FitRequest(config, table.mask, SEED, epochs=2, initial=table.initial))
        kept = kept_entries(table.mask, tables_of(settings(small_config, backbone)), table.mask.width)
        assert (result.table[~kept] == 0).all()
        assert (result.table[kept] != 0).mean() > 0.99
        CompressedTable.from_fit(data, data, config, table.mask, result, {}).save(Storage(tmp_path))
        again = load(tmp_path)
        users = np.arange(data.n_users)
        np.testing.assert_array_equal(
            again.scores(users), result.recommender.score_users(torch.from_numpy(users)).numpy()
        )
        known = again.recommend(data.user_ids[0].as_py(), k=5)
        assert len(known.items) == 5
        assert _same(again.mask, table.mask)

    def test_equal_seeds_give_equal_masks_and_nothing_is_learned_from_the_test(
        self, planted: Planted, small_config: Config, found: Found, method: str, backbone: str
    ) -> None:
        """The data of the second run has no test part."""
        blind = dataclasses.replace(planted.data, test=Pairs.none())
        again = METHODS[method].compress(blind, settings(small_config, backbone), BUDGETS, SEED)
        assert same_masks(again, found(method, backbone))


@pytest.mark.parametrize("method", LEARN_ROWS)
def test_another_seed_learns_another_mask(planted: Planted, small_config: Config, found: Found, method: str) -> None:
    other = METHODS[method].compress(planted.data, settings(small_config, "lightgcn"), BUDGETS, SEED + 1)
    for first, second in zip(other, found(method, "lightgcn"), strict=True):
        assert first.name != second.name
        assert not _same(first.mask, second.mask)


def _same(first: Mask, second: Mask) -> bool:
    return type(first) is type(second) and all(
        np.array_equal(value, pattern(second)[name]) for name, value in pattern(first).items()
    )


def test_sizes_of_prefix_masks_start_at_the_first_column(found: Found) -> None:
    for method in ("esapn", "optembed"):
        for table in found(method, "lightgcn"):
            assert isinstance(table.mask, PrefixMask)


def test_the_suite_covers_the_registry() -> None:
    assert {method for method, _ in EVERY} == set(METHODS)
    assert set(SETTINGS) == set(LEARN_ROWS)
    assert {*LEARN_ROWS, "sized"} == {name for name, method in METHODS.items() if method.learned}


@pytest.mark.parametrize("method", LEARN_ROWS)
def test_a_backbone_without_rows_of_users_is_refused(small_config: Config, method: str) -> None:
    with pytest.raises(InputError, match=r"Found backbone items with a method that learns the rows.*Expected full, eq"):
        METHODS[method].check(settings(small_config, "items"))


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in WITHOUT_USERS])
def test_native_esapn_goes_on_where_its_search_ended(
    planted: Planted, small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    """The first table of its training is the last one of the search; and it is saved, counted and served."""
    ended: list[torch.Tensor] = []
    rows = LeveledEmbedding.rows

    def spy(self: LeveledEmbedding, max_size: int) -> torch.Tensor:
        ended.append(self().detach().clone())
        return rows(self, max_size)

    monkeypatch.setattr(LeveledEmbedding, "rows", spy)
    config = settings(small_config, backbone)
    native = config.model_copy(update={"esapn": config.esapn.model_copy(update={"output": "native"})})
    run, budgets = Storage(tmp_path), list[Fraction]()
    (table,) = LearnedMasks("esapn", planted.data, native, SEED, run.child("learned")).learn(budgets)
    assert table.name == f"esapn-native-s{SEED}"
    (plain,) = METHODS["esapn"].compress(planted.data, config, budgets, SEED)
    assert _same(table.mask, plain.mask)
    tables = tables_of(config)
    first = ChainedEmbedding(table.initial["table"], table.mask, tables, table.decoder, planted.data.n_users)
    torch.testing.assert_close(first(), ended[0], rtol=0, atol=1e-6)
    quick = config.recommender().model_copy(
        update={"training": config.training.model_copy(update={"max_epochs": 4, "evaluate_every": 2})}
    )
    train_table(planted.data, table, quick, run)
    saved = load(run.child("tables", table.name))
    assert saved.card["kept_parameters"] == table.mask.kept * tables
    assert saved.card["search"]["map_parameters"] == sum(value.numel() for value in table.decoder.values())
    assert len(saved.recommend(planted.data.user_ids[0].as_py(), k=3).items) == 3
