"""Settings of the learned methods (section 3.1), with what their own papers and codes use beside the defaults."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from ciess.config import Frozen


class PEPConfig(Frozen):
    """PEP (Liu et al., ICLR 2021): soft thresholds that are learned with the table."""

    initial_threshold: float = -10.0
    """s before training; the threshold is sigmoid(s) (published code: -15 on MovieLens-1M)."""
    learning_rate: PositiveFloat = 1e-2
    """Learning rate of Adam for table, thresholds and model in the search (published code: 1e-3)."""
    threshold_decay: Annotated[float, Field(ge=0)] = 1e-5
    """L2 penalty on the thresholds, coupled with Adam, which is what drives the pruning (published code: 1e-5)."""
    decay: Annotated[float, Field(ge=0)] = 1e-2
    """gamma of Eq. 4 in the search, on the rows behind the thresholds (published code: none)."""
    check_every: PositiveInt = 10
    """Steps between two counts of what is kept (published code: every step)."""
    max_steps: PositiveInt = 10_000
    """Steps before gamma is raised, and at last the largest margins are kept instead."""


class ESAPNConfig(Frozen):
    """ESAPN (Liu et al., SIGIR 2020): policy networks enlarge the embeddings of users and items as data streams in."""

    sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (2, 4, 8, 16, 64, 128)
    """Embedding sizes, ascending (published code)."""


class OptEmbedConfig(Frozen):
    """OptEmbed (Lyu et al., CIKM 2022): a supernet with row thresholds, then an evolution over field-wise sizes."""

    thresholds: bool = True
    """Learn which rows to keep."""
