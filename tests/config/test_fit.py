import pytest
from pydantic import ValidationError

from ciess.config.fit import BUDGETED, OUTCOMES, FitConfig
from ciess.methods import METHODS


def test_the_methods_are_those_of_the_registry() -> None:
    """Config knows no torch, so its names and those of METHODS are two lists."""
    assert tuple(name for name, method in METHODS.items() if not method.precise) == OUTCOMES
    assert {*BUDGETED, *OUTCOMES, "full"} == set(METHODS)
    for name in METHODS:
        assert FitConfig.model_validate({"method": (name,)}).method == (name,)
    for name, method in METHODS.items():
        # sized has a grid of its own, but no settings.
        assert (method.learned and name != "sized") == (name in FitConfig.model_fields)


@pytest.mark.parametrize("methods", [("esapn",), ("optembed",), ("esapn", "optembed"), ("full", "optembed")])
def test_without_a_method_that_keeps_budgets_there_are_none(methods: tuple[str, ...]) -> None:
    assert FitConfig.model_validate({"method": methods}).sparsity == ()


@pytest.mark.parametrize("methods", [("full",), ("pep",), ("esapn", "equal")])
def test_budgets_of_the_paper_otherwise(methods: tuple[str, ...]) -> None:
    assert FitConfig.model_validate({"method": methods}).sparsity == (0.8, 0.9, 0.95)


def message(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        FitConfig.model_validate(values)
    (error,) = caught.value.errors()
    return error["msg"]


def test_a_budget_for_methods_whose_sparsity_is_an_outcome_is_refused() -> None:
    assert message(method=("esapn", "optembed"), sparsity=(0.8, 0.95)) == (
        "Value error, found --sparsity 0.8 0.95 for esapn and optembed, whose sparsity is an outcome and cannot be "
        "asked for; --sparsity gives the budgets of equal, mixed, sized and pep; leave it out, or name one of these "
        "methods, too, to compare with tables of that sparsity"
    )
    assert message(method=("full", "esapn"), sparsity=(0.9,)).startswith(
        "Value error, found --sparsity 0.9 for esapn, "
    )
    assert FitConfig.model_validate({"method": ("esapn", "equal"), "sparsity": (0.8,)}).sparsity == (0.8,)


def test_a_method_that_needs_budgets_gets_some() -> None:
    assert message(method=("full", "pep"), sparsity=()) == (
        "Value error, found no sparsity, but equal, mixed, sized and pep make a table for each; give --sparsity, "
        "such as 0.9"
    )
