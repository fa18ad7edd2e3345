"""Settings of `ciess fit`: which methods make the tables, and for which budgets."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ciess.config.methods import ESAPNConfig, OptEmbedConfig, PEPConfig
from ciess.config.starts import StartedConfig
from ciess.config.types import Sparsity

MethodName = Literal["full", "equal", "mixed", "sized", "pep", "esapn", "optembed"]
OUTCOMES = ("esapn", "optembed")
"""Methods whose sparsity cannot be asked for (section 3.2)."""
BUDGETED = ("equal", "mixed", "sized", "pep")
"""Methods that make a table for each sparsity."""


class FitConfig(StartedConfig):
    """Compressed tables, trained and tested by one protocol."""

    method: Annotated[tuple[MethodName, ...], Field(min_length=1)] = ("equal",)
    """Compression methods (section 3.1): full, equal (ES), mixed (MR), pep, esapn, optembed; and
    sized: sizes by popularity, chosen on a small grid."""
    sparsity: tuple[Sparsity, ...] = (0.8, 0.9, 0.95)
    """Budgets c of Eq. 5: shares of the table that are removed (section 3.2: 0.8, 0.9, 0.95). The
    sparsity of esapn and optembed is an outcome."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """Seeds of training, and of what the methods draw; the split has its own. Not given in the paper."""
    equal_rule: Literal["floor", "round", "filled"] = "floor"
    """Equal sizes under a budget: floor(1 - c) d_max keeps it (section 3.2); `round` may break it; `filled` gives the
    most popular rows one more until it is used up."""
    mixed_fill: bool = True
    """Fill mixed sizes up to the budget, so that they are not handicapped by unused parameters."""
    refit: bool = True
    """Train on training and validation data for the chosen number of epochs before the test; else test as chosen."""
    pep: PEPConfig = PEPConfig()
    """Settings of pep."""
    esapn: ESAPNConfig = ESAPNConfig()
    """Settings of esapn."""
    optembed: OptEmbedConfig = OptEmbedConfig()
    """Settings of optembed."""

    @model_validator(mode="before")
    @classmethod
    def _no_budgets_where_none_is_kept(cls, values: Any) -> Any:
        if isinstance(values, dict) and "sparsity" not in values:
            methods = set(values.get("method", BUDGETED))
            if methods & set(OUTCOMES) and not methods & set(BUDGETED):
                return values | {"sparsity": ()}
        return values

    @model_validator(mode="after")
    def _budgets_fit_methods(self) -> Self:
        outcomes = [method for method in self.method if method in OUTCOMES]
        budgeted = set(BUDGETED) & set(self.method)
        if self.sparsity and outcomes and not budgeted:
            found = " ".join(f"{sparsity:g}" for sparsity in self.sparsity)
            raise ValueError(
                f"found --sparsity {found} for {' and '.join(outcomes)}, whose sparsity is an outcome and cannot be "
                "asked for; --sparsity gives the budgets of equal, mixed, sized and pep; leave it out, or name one of "
                "these methods, too, to compare with tables of that sparsity"
            )
        if not self.sparsity and budgeted:
            raise ValueError(
                "found no sparsity, but equal, mixed, sized and pep make a table for each; give --sparsity, such as 0.9"
            )
        return self
