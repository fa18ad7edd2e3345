from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.config.methods import ESAPNConfig
from ciess.config.models import WITHOUT_USERS
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import FitError, InputError
from ciess.methods.esapn.esapn import check_sizes, esapn
from ciess.methods.journal import Journal
from ciess.models import BACKBONES
from ciess.storage.storage import Storage

SMALL = {"sizes": (2, 4, 8, 16), "batch_size": 200, "learning_rate": 0.01, "policy_learning_rate": 1e-3, "epochs": 3}
every_backbone = pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in WITHOUT_USERS])


@pytest.fixture(scope="module")
def data(planted: Planted) -> Interactions:
    return planted.data


@pytest.fixture
def config(small_config: Callable[..., Any]) -> Callable[..., FitConfig]:
    """config(backbone, epochs=..., ...): settings of ESAPN, the other ones small."""

    def make(backbone: str = "lightgcn", **settings: Any) -> FitConfig:
        return FitConfig(**(dict(small_config(backbone)) | {"esapn": SMALL | {"initial_stay": 0.0} | settings}))

    return make


def sizes(tables: list[Any]) -> Any:
    (table,) = tables
    assert isinstance(table.mask, masks.PrefixMask)
    return table.mask.sizes


@every_backbone
def test_one_table_with_sizes_of_the_set_whatever_the_budgets(
    data: Interactions, config: Callable[..., FitConfig], backbone: str
) -> None:
    (table,) = esapn(data, config(backbone), [Fraction(4, 5), Fraction(9, 10)], 3)
    assert (table.name, table.target_sparsity, table.flag, dict(table.initial)) == ("esapn-s3", None, None, {})
    assert isinstance(table.mask, masks.PrefixMask)
    assert (len(table.mask.sizes), table.mask.max_size) == (data.n, 16)
    assert set(table.mask.sizes.tolist()) <= {2, 4, 8, 16}
    assert 0 < masks.sparsity(table.mask) < Fraction(7, 8)
    np.testing.assert_array_equal(sizes(esapn(data, config(backbone), [], 3)), table.mask.sizes)


def test_the_seed_decides(data: Interactions, config: Callable[..., FitConfig]) -> None:
    first, second = (sizes(esapn(data, config(), [], seed)) for seed in (0, 1))
    assert (first != second).any()


@every_backbone
@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_search_ends_with_the_same_sizes_and_history(
    data: Interactions, config: Callable[..., FitConfig], tmp_path: Path, backbone: str, stop: int
) -> None:
    """Stopped at the end of the first pass, and in the middle of the second."""

    class Stopped(Exception):
        pass

    settings = config(backbone, batch_size=100, epochs=2)
    undisturbed = Journal()
    expected = sizes(esapn(data, settings, [], 0, undisturbed))
    steps = [row["step"] for row in undisturbed.rows if row["epoch"] == stop]
    last = steps[-1] if stop == 1 else steps[0]
    assert (stop == 1) == (last == steps[-1])

    def interrupt(row: Any) -> None:
        if row["step"] == last:
            raise Stopped

    with pytest.raises(Stopped):
        esapn(data, settings, [], 0, Journal(Storage(tmp_path), "f", interrupt))
    shown: list[Any] = []
    resumed = Journal(Storage(tmp_path), "f", shown.append)
    np.testing.assert_array_equal(sizes(esapn(data, settings, [], 0, resumed)), expected)
    assert resumed.rows == undisturbed.rows
    assert len(shown) == sum(row["epoch"] >= stop for row in undisturbed.rows)  # type: ignore[operator]
    again = Journal(Storage(tmp_path), "f", lambda row: pytest.fail("trained again"))
    np.testing.assert_array_equal(sizes(esapn(data, settings, [], 0, again)), expected)


def test_sizes_are_final_when_hardly_any_row_grows(data: Interactions, config: Callable[..., FitConfig]) -> None:
    journal = Journal()
    (table,) = esapn(data, config(epochs=20, initial_stay=-50.0), [], 0, journal)
    assert set(table.mask.sizes.tolist()) >= {16}  # type: ignore[union-attr]
    assert table.search["passes"] < 20
    assert journal.rows[-1]["epoch"] == table.search["passes"]
    assert sum(row["grown"] for row in journal.rows if row["epoch"] == table.search["passes"]) < 1  # type: ignore[misc]
    (all_passes,) = esapn(data, config(epochs=2, initial_stay=-50.0), [], 0)
    assert all_passes.search["passes"] == 2


def test_sizes_are_not_final_before_the_policies_have_enlarged_anything(
    data: Interactions, config: Callable[..., FitConfig]
) -> None:
    (table,) = esapn(data, config(initial_stay=100.0), [], 0)
    assert set(table.mask.sizes.tolist()) == {2}  # type: ignore[union-attr]
    assert table.search["passes"] == 3


def test_sizes_above_max_size_are_refused_before_anything_is_trained(
    data: Interactions, small_config: Callable[..., Any]
) -> None:
    config = FitConfig(**dict(small_config()))
    journal = Journal(on_row=lambda row: pytest.fail("trained"))
    for refused in (lambda: esapn(data, config, [], 0, journal), lambda: check_sizes(config)):
        with pytest.raises(InputError) as error:
            refused()  # type: ignore[no-untyped-call]
        assert str(error.value) == (
            "The sizes of ESAPN are 2, 4, 8, 16, 64, 128, but max_size is 16, and no row has more columns than that. "
            "Give esapn.sizes of 2, 4, 8, 16, or a max_size of 128 or more."
        )
    with pytest.raises(InputError, match=r"Give two or more smaller esapn\.sizes, or a max_size of 64 or more\.$"):
        check_sizes(FitConfig(**(dict(small_config()) | {"esapn": {"sizes": (8, 64)}})))


def test_sizes_below_max_size_are_taken(data: Interactions, config: Callable[..., FitConfig]) -> None:
    (table,) = esapn(data, config(sizes=(3, 5), initial_stay=-50.0), [], 0)
    assert (set(table.mask.sizes.tolist()), table.mask.max_size) == ({5}, 16)  # type: ignore[union-attr]


@pytest.mark.parametrize("wrong", [(4, 2), (2, 2, 4)])
def test_sizes_that_do_not_ascend_are_refused(wrong: tuple[int, ...]) -> None:
    text = "sizes must ascend without repeats, found " + ", ".join(map(str, wrong))
    with pytest.raises(ValidationError, match=text):
        ESAPNConfig(sizes=wrong)


@pytest.mark.parametrize("wrong", [(4,), (0, 4)])
def test_one_size_or_none_is_no_choice(wrong: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="sizes"):
        ESAPNConfig(sizes=wrong)


def test_policies_that_could_not_learn_are_refused() -> None:
    with pytest.raises(ValidationError) as error:
        ESAPNConfig(epochs=1, lookahead=1)
    assert error.value.errors()[0]["msg"] == (
        "Value error, found one pass with a lookahead of 1, under which the policies make their only step before any "
        "loss was seen, and learn nothing; more epochs, or a smaller lookahead, were expected"
    )


def test_a_loss_that_is_not_finite_stops_the_search(data: Interactions, config: Callable[..., FitConfig]) -> None:
    with pytest.raises(FitError) as error:
        esapn(data, config(learning_rate=1e38, bn_tanh=False), [], 0)
    assert str(error.value).startswith("The loss of the ESAPN search is ")
    assert "with seed 0; a finite number was expected. Lower esapn.learning_rate." in str(error.value)
