"""An evolution over vectors of sizes with elitism and a cache: a pure function of a fitness (OptEmbed, stage 2)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ciess.config.methods import OptEmbedConfig
from ciess.seeds import derive_seed

Genome = npt.NDArray[np.int16]
"""int16[genes], each in 1..largest."""

REDRAWS = 10
"""How often an offspring that was met before is drawn anew: of two genes a mutation changes none in 81 of 100 draws."""


@dataclass(frozen=True, eq=False)
class Generation:
    """What a generation leaves behind.

    Attributes:
        number: counted from 1.
        parents: int16[k, genes], best first, the older first where they are equally good.
        fitness: float64[k], theirs.
        cache: fitness of every genome evaluated so far, by `key`.
    """

    number: int
    parents: npt.NDArray[np.int16]
    fitness: npt.NDArray[np.float64]
    cache: dict[str, float] = field(repr=False)

    @property
    def best(self) -> Genome:
        """The best candidate of this and of all earlier generations."""
        winner: Genome = self.parents[0]
        return winner


def key(candidate: Genome) -> str:
    """Name of a candidate in the cache."""
    return hashlib.sha256(candidate.tobytes()).hexdigest()[:32]


def evolve(
    fitness: Callable[[Genome], float],
    genes: int,
    largest: int,
    config: OptEmbedConfig,
    seed: int,
    after: Generation | None = None,
    on_generation: Callable[[Generation], None] | None = None,
) -> Generation:
    """Evolve sizes for `config.generations`.

    The first generation is `population` genomes, uniform in 1..largest; every other one is `mutations` of and
    `crossovers` between the `parents` fittest of all so far (elitism: README of the published code, whose code keeps
    none).

    Args:
        fitness: more is better; asked once a genome at most.
        genes: sizes of a genome.
        largest: largest size.
        config: of the evolution.
        seed: of all draws.
        after: a generation to go on from; the rest is the same as if there had been no break.
        on_generation: called after every generation.

    Returns:
        the last generation.
    """
    generation = after or Generation(0, np.empty((0, genes), np.int16), np.empty(0), {})
    while generation.number < config.generations:
        number = generation.number + 1
        generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "optembed", "evolution", number)))
        if number == 1:
            offspring = generator.integers(1, largest + 1, (config.population, genes), dtype=np.int16)
        else:
            offspring = _offspring(generation, largest, config, generator)
        cache = dict(generation.cache)
        for candidate in offspring:
            if key(candidate) not in cache:
                cache[key(candidate)] = fitness(candidate)
        values = np.array([cache[key(candidate)] for candidate in offspring])
        generation = _selected(generation, offspring, values, cache, config.parents)
        if on_generation is not None:
            on_generation(generation)
    return generation


def mutated(parent: Genome, largest: int, probability: float, generator: np.random.Generator) -> Genome:
    """A copy in which every gene is drawn anew, uniform in 1..largest, with this probability."""
    hit = generator.random(len(parent)) < probability
    return np.where(hit, generator.integers(1, largest + 1, len(parent), dtype=np.int16), parent)


def crossed(mother: Genome, father: Genome, generator: np.random.Generator) -> Genome:
    """Each gene from either parent, with equal probability."""
    return np.where(generator.random(len(mother)) < 0.5, mother, father)


def _offspring(
    generation: Generation, largest: int, config: OptEmbedConfig, generator: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Mutations first, then crossovers: int16[mutations + crossovers, genes]."""
    parents = generation.parents
    met = set(generation.cache)

    def mutation() -> Genome:
        parent = parents[generator.integers(len(parents))]
        return mutated(parent, largest, config.mutation_probability, generator)

    def crossover() -> Genome:
        mother, father = generator.choice(len(parents), 2, replace=len(parents) == 1)
        return crossed(parents[mother], parents[father], generator)

    children = []
    for draw in [mutation] * config.mutations + [crossover] * config.crossovers:
        child = draw()
        for _ in range(REDRAWS):
            if key(child) not in met:
                break
            child = draw()
        met.add(key(child))
        children.append(child)
    return np.array(children, dtype=np.int16).reshape(len(children), parents.shape[1])


def _selected(
    before: Generation,
    offspring: npt.NDArray[np.int16],
    values: npt.NDArray[np.float64],
    cache: dict[str, float],
    count: int,
) -> Generation:
    """The `count` fittest of the earlier parents and the offspring, each once."""
    candidates = np.concatenate([before.parents, offspring])
    values = np.concatenate([before.fitness, values])
    first = np.sort(np.unique([key(candidate) for candidate in candidates], return_index=True)[1])
    chosen = first[np.argsort(-values[first], kind="stable")][:count]
    return Generation(before.number + 1, candidates[chosen], values[chosen], cache)
