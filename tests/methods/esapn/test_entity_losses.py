import numpy as np
import torch

from ciess.methods.esapn.entity_losses import EntityLosses, entity_means

N, MEMORY = 9, 3


def test_counts_means_last_losses_and_rewards_are_those_of_a_loop() -> None:
    generator = np.random.default_rng(0)
    losses = EntityLosses(N, MEMORY)
    counts, past = [0] * N, [[] for _ in range(N)]  # type: ignore[var-annotated]
    for _ in range(12):
        entities = generator.integers(0, N - 1, size=5)  # the last entity never comes
        values = generator.random(5).astype(np.float32)
        means, pairs = entity_means(torch.from_numpy(entities), torch.from_numpy(values), N)
        current = generator.random(N).astype(np.float32)
        losses.record(means, pairs)
        streamed = torch.from_numpy(generator.integers(0, 4, size=N))
        losses.count(streamed)
        counts = [old + int(new) for old, new in zip(counts, streamed, strict=True)]
        for entity in range(N):
            own = values[entities == entity]
            assert int(pairs[entity]) == len(own)
            if len(own):
                np.testing.assert_allclose(float(means[entity]), own.mean(), rtol=1e-6)
                past[entity].append(own.mean())
        rewards = losses.rewards(torch.from_numpy(current))
        for entity in range(N - 1):
            if past[entity]:
                expected = np.mean(past[entity][-MEMORY:]) - current[entity]
                np.testing.assert_allclose(float(rewards[entity]), expected, rtol=1e-5, atol=1e-6)
        assert losses.counts.tolist() == counts
        assert losses.seen.tolist() == [min(len(own), MEMORY) for own in past]
    assert losses.seen[-1] == 0
    assert losses.seen[:-1].min() == MEMORY


def test_popularity_is_the_whole_part_of_the_logarithm() -> None:
    counts = [0, 1, 2, 3, 6, 7, 8, 1022, 1023, 2**40 - 2, 2**40 - 1]
    losses = EntityLosses(len(counts), MEMORY)
    losses.counts += torch.tensor(counts)
    assert losses.popularity(39).tolist() == [0, 1, 1, 2, 2, 3, 3, 9, 10, 39, 39]
