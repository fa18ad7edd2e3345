"""Settings of the backbones."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ciess.config.types import Frozen, Probability

BackboneName = Literal["lightgcn", "ngcf", "ncf", "items"]


class LightGCNConfig(Frozen):
    """LightGCN (He et al., SIGIR 2020)."""

    layers: PositiveInt = 3
    """Propagation layers K (original code: 3)."""
    initial_scale: PositiveFloat = 0.1
    """Standard deviation of the initial table (original code: 0.1; the published CIESS code: 0.01)."""


class NGCFConfig(Frozen):
    """NGCF (Wang et al., SIGIR 2019), as in its original code."""

    layers: PositiveInt = 3
    """Propagation layers (original runs: 3)."""
    width: PositiveInt = 128
    """Columns of every layer's output (published CIESS code: 128; original runs: 64)."""
    message_dropout: Probability = 0.1
    """Share of layer outputs dropped in training (original runs: 0.1)."""
    node_dropout: Probability = 0.0
    """Share of edges dropped in training (original runs: 0; the published CIESS code: 0.1)."""
    activation: Literal["per_term", "joint"] = "per_term"
    """LeakyReLU on each of the two terms (original code) or once on their sum (paper, published CIESS code)."""
    adjacency: Literal["row", "symmetric"] = "row"
    """(D+I)^-1 (A+I), the original code's `norm`, or D^-1/2 A D^-1/2 without self loops, the NGCF paper's matrix."""


class NCFConfig(Frozen):
    """NCF in its NeuMF form (He et al., WWW 2017): GMF and a tower side by side."""

    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128, 64, 32)
    """Widths of the tower after its input of 2 x max_size (original code: halving; published CIESS code: 128)."""
    initial_scale: PositiveFloat = 0.01
    """Standard deviation of the initial tables (original code: 0.01)."""


class ItemsConfig(Frozen):
    """Items' rows only: a user is the weighted sum of its history's rows.

    The family of PureSVD (Cremonesi et al., RecSys 2010), EigenRec (Nikolakopoulos et al., KAIS 2019) and FISM (Kabbur
    et al., KDD 2013): score = (Du^-1/2 R Di^-b W)(Di^a W)'.
    """

    history_exponent: Annotated[float, Field(ge=0, le=2)] | None = None
    """b: an item of the history counts degree^-b; None lets validation choose it with the start, .4 where none does."""
    item_exponent: Annotated[float, Field(ge=-2, le=2)] | None = None
    """a: an item's own row counts degree^a; None lets validation choose it with the start, .25 where none does."""
    initial_scale: PositiveFloat = 0.1
    """Standard deviation of a table that is drawn."""


ModelConfig = LightGCNConfig | NGCFConfig | NCFConfig | ItemsConfig

MODEL_CONFIGS: dict[str, type[ModelConfig]] = {
    "lightgcn": LightGCNConfig,
    "ngcf": NGCFConfig,
    "ncf": NCFConfig,
    "items": ItemsConfig,
}

LEAST_SIZES = {"lightgcn": 0, "ngcf": 0, "ncf": 1, "items": 0}
"""Smallest size that a row may have: 0 where propagation or history gives a row without dimensions a vector."""

DEFAULT_SIZES = LEAST_SIZES | {"items": 1}
"""Smallest size unless said otherwise: without a graph an item without a row can never be recommended."""

WITHOUT_USERS = ("items",)
"""Backbones whose users have no rows; budgets count theirs as removed."""

LEAVE_ONE_OUT = ("lightgcn", "items")
"""Backbones that know what a pair's own standing in its user's history adds to its score."""
