from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciess.config.methods import OptEmbedConfig
from ciess.methods.optembed.evolution import Generation, Genome, crossed, evolve, key, mutated

PUBLISHED = OptEmbedConfig()


def rugged(seed: int, largest: int) -> npt.NDArray[np.float64]:
    """A fitness float64[largest, largest] that rises to a ridge, with noise: many local optima."""
    a, b = np.meshgrid(np.linspace(0, 1, largest), np.linspace(0, 1, largest), indexing="ij")
    return np.minimum(a, 0.6) + np.minimum(b, 0.3) + 0.05 * np.random.default_rng(seed).standard_normal(a.shape)


class Fitness:
    """Looks a pair up, and remembers who asked for what."""

    def __init__(self, values: npt.NDArray[np.float64]) -> None:
        self.values, self.asked = values, []

    def __call__(self, candidate: Genome) -> float:
        self.asked.append(tuple(candidate.tolist()))
        return float(self.values[tuple(candidate - 1)])

    @property
    def best(self) -> float:
        """By brute force over all pairs."""
        return max(self.values[a, b] for a, b in product(*map(range, self.values.shape)))


def same(found: Generation, expected: Generation) -> bool:
    return (
        found.parents.tobytes() == expected.parents.tobytes()
        and found.fitness.tobytes() == expected.fitness.tobytes()
        and (found.number, found.cache) == (expected.number, expected.cache)
    )


class TestSearch:
    @pytest.mark.parametrize("seed", range(5))
    def test_best_pair_of_a_small_grid(self, seed: int) -> None:
        fitness = Fitness(rugged(seed, 12))
        found = evolve(fitness, 2, 12, PUBLISHED, seed)
        assert found.fitness[0] == fitness.best
        assert fitness.values[tuple(found.best - 1)] == fitness.best

    @pytest.mark.parametrize("seed", range(5))
    def test_among_the_best_in_a_hundred_pairs_of_the_whole_grid(self, seed: int) -> None:
        """600 evaluations at most, of 16,384 pairs with many local optima."""
        fitness = Fitness(rugged(seed, 128))
        found = evolve(fitness, 2, 128, PUBLISHED, seed)
        assert (fitness.values > found.fitness[0]).mean() < 0.01

    def test_finds_the_best_pair_where_as_many_random_ones_do_not(self) -> None:
        """One best pair of 2,304: 600 random pairs meet it for 1 seed in 4."""
        largest, best = 48, np.array([29, 14])

        def fitness(candidate: Genome) -> float:
            return -float(np.abs(candidate - best).sum())

        found = [evolve(fitness, 2, largest, PUBLISHED, seed) for seed in range(5)]
        assert [generation.best.tolist() for generation in found] == [best.tolist()] * 5
        assert all(len(generation.cache) <= 600 for generation in found)
        draws = [np.random.default_rng(seed).integers(1, largest + 1, (600, 2)) for seed in range(5)]
        assert sum(bool((drawn == best).all(1).any()) for drawn in draws) <= 2

    def test_gets_near_an_optimum_that_chance_does_not(self) -> None:
        """Of 40 genes, each of which counts: 600 random candidates do not come near."""
        largest, genes = 16, 40

        def fitness(candidate: Genome) -> float:
            return -float(np.abs(candidate - 5).sum())

        random = np.random.default_rng(0).integers(1, largest + 1, (600, genes))
        found = evolve(fitness, genes, largest, PUBLISHED, 0)
        assert found.fitness[0] > 0.7 * max(map(fitness, random))


class TestCache:
    @settings(max_examples=20)
    @given(st.integers(0, 2**32), st.integers(1, 12))
    def test_no_candidate_is_evaluated_twice(self, seed: int, largest: int) -> None:
        fitness = Fitness(rugged(seed, largest))
        found = evolve(fitness, 2, largest, PUBLISHED, seed)
        assert len(fitness.asked) == len(set(fitness.asked)) == len(found.cache) <= 600

    def test_draws_again_what_was_met(self) -> None:
        """Of two genes, a mutation leaves 81 of 100 parents as they are: without other draws, some 120 would be new."""
        fitness = Fitness(rugged(0, 128))
        assert len(evolve(fitness, 2, 128, PUBLISHED, 0).cache) > 300

    def test_every_parent_is_there_once(self) -> None:
        found = evolve(Fitness(rugged(0, 4)), 2, 4, PUBLISHED, 0)
        assert len({key(parent) for parent in found.parents}) == len(found.parents) == 15


class TestElitism:
    @given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 4), st.integers(0, 4))
    def test_the_best_is_never_lost(self, seed: int, parents: int, mutations: int, crossovers: int) -> None:
        config = OptEmbedConfig(
            population=5, generations=8, parents=parents, mutations=mutations, crossovers=crossovers
        )
        seen: list[Generation] = []
        evolve(Fitness(rugged(seed, 20)), 2, 20, config, seed, on_generation=seen.append)
        bests = [generation.fitness[0] for generation in seen]
        assert bests == sorted(bests)
        for generation in seen:
            assert generation.fitness[0] == max(generation.cache.values())
            assert generation.fitness.tolist() == sorted(generation.fitness, reverse=True)
            assert len(generation.parents) == len(generation.fitness) <= parents

    def test_parents_are_not_changed_in_place(self) -> None:
        seen: list[tuple[Generation, bytes]] = []
        evolve(
            Fitness(rugged(1, 30)), 2, 30, PUBLISHED, 1, on_generation=lambda g: seen.append((g, g.parents.tobytes()))
        )
        for generation, before in seen:
            assert generation.parents.tobytes() == before
            assert [generation.cache[key(parent)] for parent in generation.parents] == generation.fitness.tolist()

    def test_equally_good_candidates_stay_in_the_order_of_their_age(self) -> None:
        seen: list[Generation] = []
        evolve(lambda candidate: 1.0, 2, 50, PUBLISHED, 0, on_generation=seen.append)
        assert {generation.parents.tobytes() for generation in seen} == {seen[0].parents.tobytes()}


class TestDraws:
    def test_mutation_reaches_1_and_the_largest(self) -> None:
        generator = np.random.default_rng(0)
        parent = np.full(3, 2, np.int16)
        children = np.array([mutated(parent, 5, 1.0, generator) for _ in range(200)])
        assert children.dtype == np.int16
        for gene in children.T:
            assert set(gene.tolist()) == {1, 2, 3, 4, 5}
        assert parent.tolist() == [2, 2, 2]

    def test_mutation_changes_as_many_genes_as_its_probability(self) -> None:
        parent = np.zeros(100_000, np.int16)  # no draw gives 0: whatever was drawn anew is seen
        assert (mutated(parent, 128, 0.1, np.random.default_rng(0)) > 0).mean() == pytest.approx(0.1, abs=0.005)

    def test_crossover_is_uniform(self) -> None:
        """All four children of two pairs appear, a quarter each; with one point, two of them would not."""
        mother, father = np.array([1, 2], np.int16), np.array([3, 4], np.int16)
        generator = np.random.default_rng(0)
        children = [tuple(crossed(mother, father, generator).tolist()) for _ in range(4000)]
        for pair in product((1, 3), (2, 4)):
            assert children.count(pair) / 4000 == pytest.approx(0.25, abs=0.03)

    @given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 6))
    def test_all_candidates_stay_in_range(self, seed: int, largest: int, genes: int) -> None:
        asked = []

        def fitness(candidate: Genome) -> float:
            asked.append(candidate)
            return float(candidate.sum())

        config = OptEmbedConfig(population=6, generations=5, mutations=4, crossovers=3, mutation_probability=0.5)
        evolve(fitness, genes, largest, config, seed)
        every = np.array(asked)
        assert every.shape[1] == genes
        assert every.min() >= 1
        assert every.max() <= largest

    def test_random_candidates_reach_both_ends(self) -> None:
        config = OptEmbedConfig(population=200, generations=1)
        fitness = Fitness(np.zeros((6, 6)))
        evolve(fitness, 2, 6, config, 0)
        assert {size for pair in fitness.asked for size in pair} == {1, 2, 3, 4, 5, 6}


class TestSeeds:
    def test_equal_seeds_equal_bits(self) -> None:
        first, second = (evolve(Fitness(rugged(0, 60)), 2, 60, PUBLISHED, 3) for _ in range(2))
        assert same(first, second)

    def test_other_seeds_ask_for_other_candidates(self) -> None:
        first, second = (evolve(Fitness(rugged(0, 60)), 2, 60, PUBLISHED, seed) for seed in (0, 1))
        assert set(first.cache) != set(second.cache)

    @pytest.mark.parametrize("stop", [1, 2, 17, 30])
    def test_goes_on_as_if_there_had_been_no_break(self, stop: int) -> None:
        seen: list[Generation] = []
        expected = evolve(Fitness(rugged(0, 60)), 2, 60, PUBLISHED, 3, on_generation=seen.append)
        fitness, rest = Fitness(rugged(0, 60)), []
        found = evolve(fitness, 2, 60, PUBLISHED, 3, seen[stop - 1], rest.append)
        assert same(found, expected)
        assert [generation.number for generation in rest] == list(range(stop + 1, 31))
        assert len(fitness.asked) == len(expected.cache) - len(seen[stop - 1].cache)
