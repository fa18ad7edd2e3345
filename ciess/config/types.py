"""What fields of all settings are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, lt=1)]


Sparsity = Annotated[float, Field(gt=0, lt=1)]


class Frozen(BaseModel):
    """A setting cannot change after it was checked, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Seed = Annotated[int, Field(ge=0)]


UnitInterval = Annotated[float, Field(ge=0, le=1)]
