import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciess.seeds import derive_seed


def test_seed_is_the_known_value_on_every_machine() -> None:
    assert derive_seed(0, "samples", 1) == 1848815889780626927
    assert derive_seed(0, "table") == 4058458236873255046


def test_seed_is_the_first_eight_bytes_of_sha256_without_the_lowest_bit() -> None:
    digest = hashlib.sha256(b'[7,"dropout",3]').digest()
    assert derive_seed(7, "dropout", 3) == int.from_bytes(digest[:8], "little") // 2


@pytest.mark.parametrize(
    "other",
    [(1, "samples", 1), (0, "samples", 2), (0, "sample", 1), ("samples", 0, 1), ("0", "samples", 1), (0, "samples")],
)
def test_seed_depends_on_every_part_its_order_and_its_type(other: tuple[int | str, ...]) -> None:
    assert derive_seed(*other) != derive_seed(0, "samples", 1)


@given(st.lists(st.integers() | st.text()))
def test_seed_fits_a_torch_generator(content: list[int | str]) -> None:
    assert 0 <= derive_seed(*content) < 2**63


def test_a_thousand_epochs_have_a_thousand_seeds() -> None:
    assert len({derive_seed(0, "samples", epoch) for epoch in range(1000)}) == 1000
