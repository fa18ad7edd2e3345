from fractions import Fraction

import pytest

from ciess import masks
from ciess.tables.spec import Compressed

MASK = masks.full(3, 16)


@pytest.mark.parametrize(
    ("compressed", "name"),
    [
        (Compressed("full", MASK, 0), "full-s0"),
        (Compressed("equal", MASK, 0, Fraction(9, 10)), "equal-c90-s0"),
        (Compressed("mixed", MASK, 12, Fraction("0.925")), "mixed-c92.5-s12"),
        (Compressed("equal", MASK, 1, Fraction("0.29"), variant="filled"), "equal-c29-filled-s1"),
        (Compressed("ciess", MASK, 0, Fraction(4, 5), variant="c2", flag="forced"), "ciess-c80-c2-s0"),
    ],
)
def test_name_tells_method_sparsity_variant_and_seed(compressed: Compressed, name: str) -> None:
    assert compressed.name == name


def test_tables_do_not_share_their_initial_weights() -> None:
    first, second = Compressed("full", MASK, 0), Compressed("full", MASK, 1)
    assert first.initial == {}
    assert first.initial is not second.initial
