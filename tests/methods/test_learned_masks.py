"""The folder of a learned method, with one that is made up here: its masks follow from budget and seed."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import RunDirectoryError
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.methods import METHODS
from ciess.methods.journal import Journal
from ciess.methods.learned_masks import LearnedMasks, holds_masks
from ciess.methods.method import Method
from ciess.storage.storage import Storage
from ciess.tables.spec import TableSpec

HALF, MOST = Fraction(1, 2), Fraction(9, 10)


def config(**changes: Any) -> FitConfig:
    return FitConfig.model_validate({"max_size": 16, "threads": 1, "device": "cpu"} | changes)


def sparse(data: Interactions, budget: Fraction) -> SparseMask:
    generator = np.random.Generator(np.random.PCG64(budget.denominator))
    return SparseMask.from_dense(generator.random((data.n, 32)) < float(1 - budget), 16)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[Fraction]]:
    """Budgets of each call of `pep` and `esapn`, both made up."""
    seen: list[list[Fraction]] = []

    def pep(
        data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
    ) -> list[TableSpec]:
        assert journal is not None
        seen.append(list(budgets))
        journal.note(stage="search", step=1, loss=0.5)
        journal.note(stage="last", step=2, sparsity=0.25)
        journal.save(2, {}, {})
        initial = {"table": torch.full((2, 3), float(seed))}
        return [TableSpec("pep", sparse(data, c), seed, c, initial, "forced", "v", {"steps": 2}) for c in budgets]

    def esapn(
        data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
    ) -> list[TableSpec]:
        seen.append(list(budgets))
        return [TableSpec("esapn", masks.full(data.n, 16), seed)]

    monkeypatch.setitem(METHODS, "pep", Method(pep, learned=True))
    monkeypatch.setitem(METHODS, "esapn", Method(esapn, learned=True, precise=False))
    return seen


def same(first: TableSpec, second: TableSpec) -> None:
    for name in ("method", "seed", "target_sparsity", "flag", "variant", "name"):
        assert getattr(first, name) == getattr(second, name)
    assert isinstance(first.mask, SparseMask)
    assert isinstance(second.mask, SparseMask)
    np.testing.assert_array_equal(first.mask.indptr, second.mask.indptr)
    np.testing.assert_array_equal(first.mask.columns, second.mask.columns)
    assert (first.mask.max_size, first.mask.tables) == (second.mask.max_size, second.mask.tables)
    assert first.initial.keys() == second.initial.keys()
    for name, value in first.initial.items():
        assert torch.equal(value, second.initial[name])


def test_what_was_found_is_read_and_not_found_again(
    planted: Planted, tmp_path: Path, calls: list[list[Fraction]]
) -> None:
    folder = Storage(tmp_path)
    made = METHODS["pep"].compress(planted.data, config(), [HALF, MOST], 3, Journal())
    calls.clear()
    rows: list[Any] = []
    for _ in range(2):
        found = LearnedMasks("pep", planted.data, config(), 3, folder).learn([HALF, MOST], rows.append)
        for one, other in zip(found, made, strict=True):
            same(one, other)
            assert one.search["steps"] == 2
            assert 0 <= one.search["learning_seconds"] < 60
    assert calls == [[HALF, MOST]]
    assert rows == [{"stage": "search", "step": 1, "loss": 0.5}, {"stage": "last", "step": 2, "sparsity": 0.25}]
    assert folder.names() == ["history.parquet", "masks.safetensors", "outcome.json"]
    assert folder.read_table("history.parquet").to_pylist() == [
        {"stage": "search", "step": 1, "loss": 0.5, "sparsity": None},
        {"stage": "last", "step": 2, "loss": None, "sparsity": 0.25},
    ]


def test_a_further_budget_runs_the_method_for_all_of_them(
    planted: Planted, tmp_path: Path, calls: list[list[Fraction]]
) -> None:
    learned = LearnedMasks("pep", planted.data, config(), 0, Storage(tmp_path))
    assert not learned.known([HALF])
    learned.learn([HALF])
    assert learned.known([HALF])
    assert not learned.known([HALF, MOST])
    (most,) = learned.learn([MOST])
    assert most.target_sparsity == MOST
    assert learned.known([MOST, HALF])
    (half,) = learned.learn([HALF])
    assert half.target_sparsity == HALF
    assert calls == [[HALF], [HALF, MOST]]


def test_a_further_budget_leaves_the_masks_of_the_others_as_they_were(
    planted: Planted, tmp_path: Path, calls: list[list[Fraction]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables may stand on them, and on a GPU the method does not find the same ones again."""
    learned = LearnedMasks("pep", planted.data, config(), 0, Storage(tmp_path))
    (before,) = learned.learn([HALF])
    full = SparseMask.from_dense(np.ones((planted.data.n, 32), np.bool_), 16)
    monkeypatch.setattr(f"{__name__}.sparse", lambda *_: full)
    after, most = learned.learn([HALF, MOST])
    same(after, before)
    assert most.mask.kept == full.kept > before.mask.kept


def test_budgets_do_not_matter_where_the_sparsity_is_an_outcome(
    planted: Planted, tmp_path: Path, calls: list[list[Fraction]]
) -> None:
    learned = LearnedMasks("esapn", planted.data, config(), 1, Storage(tmp_path))
    assert not holds_masks(learned.folder, "esapn", [])
    for budgets in ([HALF], [MOST], []):
        (table,) = learned.learn(budgets)
        assert (table.name, table.target_sparsity) == ("esapn-s1", None)
        assert isinstance(table.mask, PrefixMask)
        assert holds_masks(learned.folder, "esapn", [HALF])
        assert learned.count(budgets) == 1
    assert calls == [[]]


@pytest.mark.parametrize(
    "changes",
    [{"pep": {"max_steps": 7}}, {"training": {"decay": 0.5}}, {"max_size": 8}, {"backbone": "ngcf"}],
    ids=lambda changes: next(iter(changes)),
)
def test_masks_of_other_settings_are_refused(
    planted: Planted, tmp_path: Path, calls: list[list[Fraction]], changes: dict[str, Any]
) -> None:
    LearnedMasks("pep", planted.data, config(), 0, Storage(tmp_path)).learn([HALF])
    other = LearnedMasks("pep", planted.data, config(**changes), 0, Storage(tmp_path))
    with pytest.raises(RunDirectoryError) as caught:
        other.learn([HALF])
    message = str(caught.value).replace(str(tmp_path), "FOLDER")
    assert message.startswith("FOLDER holds masks that were learned from other data or settings (fingerprint ")
    assert message.endswith("Choose another --out, or start anew with --overwrite.")


def test_settings_of_other_methods_threads_and_device_do_not_matter(
    planted: Planted, tmp_path: Path, calls: list[list[Fraction]]
) -> None:
    LearnedMasks("pep", planted.data, config(), 0, Storage(tmp_path)).learn([HALF])
    others = config(threads=2, device="auto", sparsity=(0.7,), seeds=(4,), esapn={"sizes": (2, 4)})
    assert LearnedMasks("pep", planted.data, others, 0, Storage(tmp_path)).known([HALF])
    assert len(calls) == 1
