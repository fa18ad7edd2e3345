"""Settings of the learned methods (section 3.1), with what their own papers and codes use beside the defaults."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ciess.config.types import Frozen, Probability


class PEPConfig(Frozen):
    """PEP (Liu et al., ICLR 2021): soft thresholds that are learned with the table."""

    granularity: Literal["global", "dimension", "feature", "feature_dim"] = "feature_dim"
    """One threshold for all, for a column, for a row or for an entry (published code: for an entry; it offers the
    others, too, which a comparison of granularities needs)."""
    initial_threshold: float = -14.0
    """s before training; the threshold is threshold_scale sigmoid(s) (published code: -15 on MovieLens-1M). The lower,
    the longer the table trains before it is pruned."""
    threshold_scale: PositiveFloat = 100.0
    """Factor on sigmoid(s) (published code: 1, under which the decay of s lifts no threshold above 0.5, and a table
    that outgrows it keeps too much; tuned on validation)."""
    learning_rate: PositiveFloat = 1e-2
    """Learning rate of Adam for table, thresholds and model in the search (published code: 1e-3)."""
    threshold_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2 penalty on s, coupled with Adam, which is what drives the pruning (published code: 1e-5, which
    is too little on small data)."""
    decay: Annotated[float, Field(ge=0)] = 1e-2
    """gamma of Eq. 4 in the search, on the rows under the thresholds (published code: none; tuned on validation)."""
    check_every: PositiveInt = 1
    """Steps between two counts of what is kept (published code: 1)."""
    max_steps: PositiveInt = 2_500
    """Steps before gamma is raised; after three times as many the largest margins are kept instead (not given)."""


class ESAPNConfig(Frozen):
    """ESAPN (Liu et al., SIGIR 2020): policy networks enlarge the embeddings of users and items as data streams in."""

    sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (2, 4, 8, 16, 64, 128)
    """Embedding sizes, ascending, the last at most max_size (published code; note that there is no 32)."""
    epochs: PositiveInt = 2
    """Most passes over the stream of training pairs (published code: 1). The more, the larger rows can grow. Chosen,
    with policy_learning_rate and initial_stay, as the best on validation of those under which policies tell rows
    apart."""
    frozen_below: Probability = 1e-3
    """Share of rows that grow in a pass, below which sizes are final, once as many have grown at all (not given)."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training pairs that only the policies see (published code: the batch trained on before)."""
    batch_size: PositiveInt | None = None
    """Streamed pairs a step of the recommender, by default training.batch_size (published code: 500)."""
    policy_batch_size: PositiveInt = 50_000
    """Held-out pairs a step of the policies (published code: 500)."""
    learning_rate: PositiveFloat = 1e-2
    """Learning rate of Adam for embeddings, chains and recommender (published code: 1e-3)."""
    policy_learning_rate: PositiveFloat = 3e-4
    """Learning rate of Adam for the policies (published code: 1e-4, at which all rows grow alike; see epochs)."""
    memory: PositiveInt = 5
    """Losses of an entity, whose mean the reward starts from (published code: 5)."""
    lookahead: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of a pass that the tentatively enlarged recommender trains before it is rewarded, and that lies between two
    steps of the policies, in which no row grows twice (published code: no training, and a step of the policies with
    every step of the recommender; but enlarging leaves the output as it is, so no reward shows it at once)."""
    initial_stay: float = -0.2
    """Logit by which staying leads before the policies are trained; below 0, rows grow until a policy has learned that
    they should not (published code: random around 0 in every state; see epochs)."""
    output: Literal["mask_retrain", "native"] = "mask_retrain"
    """`mask_retrain`: the sizes alone, trained anew as those of every method; `native`: training goes on with the rows,
    maps and recommender of the search (the "final embedding tables" of section 3.2). Sparsity counts rows, not maps."""
    bn_tanh: bool = True
    """Batch normalisation and tanh after the chain of maps (published code)."""

    @field_validator("sizes")
    @classmethod
    def _sizes_ascend(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if any(a >= b for a, b in pairwise(sizes)):
            raise ValueError(f"sizes must ascend without repeats, found {', '.join(map(str, sizes))}")
        return sizes

    @model_validator(mode="after")
    def _policies_learn(self) -> Self:
        if self.epochs == 1 and self.lookahead == 1:
            raise ValueError(
                "found one pass with a lookahead of 1, under which the policies make their only step before any loss "
                "was seen, and learn nothing; more epochs, or a smaller lookahead, were expected"
            )
        return self


class OptEmbedConfig(Frozen):
    """OptEmbed (Lyu et al., CIKM 2022): a supernet with row thresholds, then an evolution over field-wise sizes."""

    thresholds: bool = True
    """Learn which rows to keep."""
    threshold_learning_rate: PositiveFloat = 1.0
    """Learning rate of the thresholds, by plain SGD (published code: 1e-4, at which they stay next to 0)."""
    threshold_penalty: Annotated[float, Field(ge=0)] = 1e-2
    """alpha, the weight of exp(-threshold), which drives the thresholds up (published code: 1e-6 to 1e-4)."""
    per_entity: bool = False
    """One size an entity and table instead of one a field (published benchmark of collaborative filtering, whose
    figures a comparison must repeat)."""
    max_epochs: PositiveInt = 30
    """Longest training of the supernet (published code: 30)."""
    patience: PositiveInt = 1
    """Epochs without a better validation mean of Eq. 8 before the supernet is done (published code: 1)."""
    population: PositiveInt = 20
    """Random candidates of the first generation (published code: 20)."""
    generations: PositiveInt = 30
    """Generations of the evolution, the first one included (published code: 30)."""
    mutations: Annotated[int, Field(ge=0)] = 10
    """Mutated candidates a generation (published code: 10)."""
    crossovers: Annotated[int, Field(ge=0)] = 10
    """Crossed candidates a generation (published code: 10)."""
    mutation_probability: Annotated[float, Field(gt=0, le=1)] = 0.1
    """That a mutation draws a size anew, for each size (published code: 0.1)."""
    parents: PositiveInt = 15
    """Fittest candidates of all generations so far, from which the next one is made (published code: 15)."""
