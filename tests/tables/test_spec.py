from fractions import Fraction

import pytest

from ciess import masks
from ciess.tables.spec import TableSpec

MASK = masks.full(3, 16)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (TableSpec("full", MASK, 0), "full-s0"),
        (TableSpec("equal", MASK, 0, Fraction(9, 10)), "equal-c90-s0"),
        (TableSpec("mixed", MASK, 12, Fraction("0.925")), "mixed-c92.5-s12"),
        (TableSpec("equal", MASK, 1, Fraction("0.29"), variant="filled"), "equal-c29-filled-s1"),
        (TableSpec("ciess", MASK, 0, Fraction(4, 5), variant="c2", flag="forced"), "ciess-c80-c2-s0"),
    ],
)
def test_name_tells_method_sparsity_variant_and_seed(spec: TableSpec, name: str) -> None:
    assert spec.name == name


def test_tables_do_not_share_their_initial_weights() -> None:
    first, second = TableSpec("full", MASK, 0), TableSpec("full", MASK, 1)
    assert first.initial == {}
    assert first.initial is not second.initial
