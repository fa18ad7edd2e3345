"""The role of a table: a column of results.parquet, which runs of 0.1.0 do without."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ciess.reporting.summaries import read_results
from ciess.storage.columns import CHOSEN, RESULTS, SEARCHED, completed_columns
from ciess.storage.storage import Storage
from ciess.tables.results import TableResult, forget_table, record_results

ROLES = {
    "ciess-c90-s0": ("abc", CHOSEN),
    "ciess-c90-searched-s0": ("abc", SEARCHED),
    "ciess-c90-lightgcn-w0.4-gaussian-walk-s0": ("lightgcn-w0.4-gaussian-walk-s0", CHOSEN),
    "ciess-c90-searched-lightgcn-w0.4-gaussian-walk-s0": ("lightgcn-w0.4-gaussian-walk-s0", SEARCHED),
    "equal-c90-s0": (None, None),
    "esapn-native-s0": (None, None),
}
"""By name of a table: its search and role."""


def rows(*names: str, **columns: Any) -> pa.Table:
    found = [{"candidate": name, "search_id": ROLES[name][0], "value": 0.5} | columns for name in names]
    return pa.Table.from_pylist(found, schema=RESULTS)


@pytest.fixture
def old(tmp_path: Path) -> Storage:
    """A run directory whose results have no roles."""
    run = Storage(tmp_path)
    run.write_table("results.parquet", rows(*ROLES).drop_columns("role"))
    return run


def roles(table: pa.Table) -> dict[str, str | None]:
    assert table.schema == RESULTS
    return dict(zip(table["candidate"].to_pylist(), table["role"].to_pylist(), strict=True))


def test_old_results_are_read_with_the_roles_that_their_names_tell(old: Storage) -> None:
    assert roles(read_results(old)) == {name: role for name, (_, role) in ROLES.items()}


def test_a_role_that_is_written_stands_whatever_the_name() -> None:
    written = rows("ciess-c90-searched-s0", role=CHOSEN)
    assert completed_columns(written).equals(written)


def test_rows_of_other_files_get_no_role() -> None:
    other = pa.table({"candidate": ["ciess-c90-searched-s0"], "quality": [0.5]})
    assert completed_columns(other).equals(other)


def test_a_table_joins_old_results(old: Storage) -> None:
    per_user = pa.table({"candidate": [], "method": [], "target_sparsity": [], "seed": [], "user": [], "quality": []})
    result = TableResult(rows("ciess-c90-s0", role=CHOSEN, value=0.75).to_pylist(), per_user)
    record_results(old, "ciess-c90-s0", result)
    found = old.read_table("results.parquet")
    assert roles(found) == {name: role for name, (_, role) in ROLES.items()}
    assert found["value"].to_pylist() == [0.5] * (len(ROLES) - 1) + [0.75]


def test_a_table_is_forgotten_from_old_results(old: Storage) -> None:
    forget_table(old, "ciess-c90-searched-s0")
    left = {name: role for name, (_, role) in ROLES.items() if name != "ciess-c90-searched-s0"}
    assert roles(old.read_table("results.parquet")) == left
