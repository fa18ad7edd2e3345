from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ciess.config.recommender import RecommenderConfig
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.storage.columns import PER_USER, RESULTS
from ciess.storage.storage import Storage
from ciess.tables.protocol import train_table
from ciess.tables.results import TableResult, forget_table, record_results
from ciess.tables.spec import TableSpec
from ciess.tables.table import load


@pytest.mark.parametrize("backbone", ["lightgcn", "ncf"])
@pytest.mark.parametrize("kind", ["prefix", "sparse"])
def test_kept_parameters_and_sparsity_are_exact(
    planted: Planted, small_config: Callable[..., RecommenderConfig], tmp_path: Path, backbone: str, kind: str
) -> None:
    data, run = planted.data, Storage(tmp_path)
    tables, generator = (2 if backbone == "ncf" else 1), np.random.default_rng(0)
    mask: Any
    if kind == "prefix":
        mask = PrefixMask(generator.integers(1, 6, data.n).astype(np.int16), 16)
        kept = tables * int(mask.sizes.sum())
    else:
        dense = generator.random((data.n, tables * 16)) < 0.2
        mask, kept = SparseMask.from_dense(dense, 16), int(dense.sum())
    spec = TableSpec("learned", mask, 4, Fraction(3, 4), variant="c1", flag="forced")
    train_table(data, spec, small_config(backbone, max_epochs=2, evaluate_every=1), run)
    rows = run.read_table("results.parquet").to_pylist()
    assert {row["kept_parameters"] for row in rows} == {kept}
    assert {row["sparsity"] for row in rows} == {float(1 - Fraction(kept, data.n * tables * 16))}
    for key, value in (
        ("target_sparsity", 0.75),
        ("flag", "forced"),
        ("candidate", "learned-c75-c1-s4"),
        ("method", "learned"),
        ("backbone", backbone),
        ("dataset", "planted"),
        ("seed", 4),
        ("split_seed", 0),
        ("search_id", None),
    ):
        assert {row[key] for row in rows} == {value}
    card = load(run.child("tables", "learned-c75-c1-s4")).card
    assert (card["kept_parameters"], card["flag"]) == (kept, "forced")


def result_of(name: str, value: float) -> TableResult:
    row = dict.fromkeys(RESULTS.names) | {"candidate": name, "value": value}
    users = pa.Table.from_pylist([{"candidate": name, "user": 1, "quality": value}], schema=PER_USER)
    return TableResult([row], users)


def test_results_of_a_table_take_the_place_of_its_old_ones(tmp_path: Path) -> None:
    run = Storage(tmp_path)
    for name, value in (("a", 0.25), ("a-s1", 0.5), ("a", 0.75)):
        record_results(run, name, result_of(name, value))
    for file, schema, column in (("results.parquet", RESULTS, "value"), ("per_user.parquet", PER_USER, "quality")):
        table = run.read_table(file)
        assert table.schema == schema
        assert dict(zip(table["candidate"].to_pylist(), table[column].to_pylist(), strict=True)) == {
            "a-s1": 0.5,
            "a": 0.75,
        }
        assert table.num_rows == 2


def test_a_forgotten_table_leaves_nothing(tmp_path: Path) -> None:
    run = Storage(tmp_path)
    forget_table(run, "a")
    assert run.names() == []
    for name in ("a", "a-s1"):
        record_results(run, name, result_of(name, 0.25))
        run.write_json(f"tables/{name}/card.json", {})
    for _ in range(2):
        forget_table(run, "a")
        for file, schema in (("results.parquet", RESULTS), ("per_user.parquet", PER_USER)):
            table = run.read_table(file)
            assert table.schema == schema
            assert table["candidate"].to_pylist() == ["a-s1"]
        assert run.child("tables").names() == ["a-s1"]
    forget_table(run, "a-s1")
    assert run.read_table("results.parquet").num_rows == 0
