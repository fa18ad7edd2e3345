import numpy as np
import pytest
import torch

from ciess.config.methods import ESAPNConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.methods.esapn.pair_stream import Batch, PairStream
from ciess.training.prepared import prepare

CPU = torch.device("cpu")


def make(data: Interactions, seed: int = 0, **settings: float) -> PairStream:
    return PairStream(data, prepare(data, CPU), ESAPNConfig(**({"batch_size": 100} | settings)), seed)  # type: ignore[arg-type]


@pytest.fixture
def data(planted: Planted) -> Interactions:
    return planted.data


def keys(users: object, items: object, data: Interactions) -> list[int]:
    return sorted((np.asarray(users, dtype=np.int64) * data.n_items + np.asarray(items)).tolist())


def joined(batches: list[Batch]) -> list[torch.Tensor]:
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def test_a_pass_brings_every_pair_that_is_not_held_out_once(data: Interactions) -> None:
    stream = make(data, held_out=0.2)
    streamed = data.train.select(~stream.held_out)
    assert len(data.train) - len(streamed) == round(0.2 * len(data.train))
    orders = []
    for number in (1, 2):
        batches = stream.epoch(number)
        assert {len(batch[0]) for batch in batches[:-1]} == {100}
        users, positives, negatives = joined(batches)
        assert keys(users, positives, data) == keys(streamed.users, streamed.items, data)
        assert not set(keys(users, negatives, data)) & set(keys(data.train.users, data.train.items, data))
        orders.append(users.tolist())
    assert orders[0] != orders[1]


def test_held_out_pairs_come_one_batch_after_the_other_with_negatives_that_stay(data: Interactions) -> None:
    stream = make(data, held_out=0.2, policy_batch_size=50)
    held = data.train.select(stream.held_out)
    count = -(-len(held) // 50)
    users, positives, negatives = joined([stream.judging(step) for step in range(7, 7 + count)])
    assert keys(users, positives, data) == keys(held.users, held.items, data)
    assert not set(keys(users, negatives, data)) & set(keys(data.train.users, data.train.items, data))
    assert all(a.equal(b) for a, b in zip(stream.judging(1), stream.judging(1 + count), strict=True))


def test_the_graph_does_not_know_the_held_out_pairs(data: Interactions) -> None:
    stream = make(data, held_out=0.3)
    graph = stream.graph("symmetric")
    assert graph is not None
    dense = graph.matrix.to_dense()[: data.n_users, data.n_users :]
    edges = torch.zeros_like(dense, dtype=torch.bool)
    streamed = data.train.select(~stream.held_out)
    edges[torch.from_numpy(streamed.users).long(), torch.from_numpy(streamed.items).long()] = True
    assert dense.bool().equal(edges)
    assert stream.graph(None) is None


def test_what_is_held_out_follows_from_the_seed(data: Interactions) -> None:
    first, again, other = (make(data, seed).held_out for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_one_pair_is_left_on_either_side(tiny: Interactions) -> None:
    assert make(tiny, held_out=0.01).held_out.sum() == 1
    assert (~make(tiny, held_out=0.99).held_out).sum() == 1
