"""A plan of methods that find masks by trials of their own; here one that is made up has written them already."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciess import masks
from ciess.cluster.sweep.config import SweepConfig
from ciess.cluster.sweep.plan import FAILED, Absence, RetrainingPlan
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.methods import METHODS
from ciess.methods.learned_masks import LearnedMasks
from ciess.methods.method import Method
from ciess.search.reference import Reference
from ciess.storage.storage import Storage
from ciess.tables.spec import TableSpec

MAX_SIZE = 16
Plan = Callable[..., RetrainingPlan]
W2 = "lightgcn-w0.2-gaussian-walk-s0"
Call = Callable[..., Any]


class TestLearnedMethods:
    """Their masks are found by trials of their own; here one that is made up has written them already."""

    @pytest.fixture
    def found(
        self, planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes_of: Call
    ) -> Callable[..., None]:
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
            settings = config.methods_of(config.searches[W2].started())
            folder = Storage(tmp_path / "sweep" / "learned" / f"lightgcn-{method}-s0")
            monkeypatch.setitem(METHODS, method, Method(compress, learned=True, precise=precise))
            LearnedMasks(method, planted.data, settings, 0, folder).learn([masks.exact(c) for c in config.sparsities])
            monkeypatch.setitem(METHODS, method, Method(refuse, learned=True, precise=precise))

        return make

    def test_their_masks_are_trained_and_tested_like_all_others(
        self,
        plan: Plan,
        found: Callable[..., None],
        trained: tuple[Path, Reference],
        planted: Planted,
        sweep_config: Call,
        sizes_of: Call,
        finish: Call,
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

    def test_one_that_failed_is_missing_where_it_would_stand(
        self, plan: Plan, planted: Planted, sweep_config: Call
    ) -> None:
        config = sweep_config(methods=("pep", "esapn"))
        lost = {f"lightgcn-{method}-s0": f"{method} is lost" for method in config.methods}
        assert plan(config=config, failures=lost).absences == [
            Absence("lightgcn-pep-s0", 0.5, FAILED, "pep is lost"),
            Absence("lightgcn-pep-s0", 0.75, FAILED, "pep is lost"),
            Absence("lightgcn-esapn-s0", None, FAILED, "esapn is lost"),
        ]
