"""Users in blocks: nothing is lost, and one block of all is the whole."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.data.planted import Planted
from ciess.masks.mask import PrefixMask
from ciess.training import blocks
from ciess.training.blocks import Block, block_count, blocks_of
from ciess.training.fit import fit
from ciess.training.loop import FitRequest, Training
from ciess.training.prepared import prepare

CPU = torch.device("cpu")


def request(data: Any, **values: Any) -> FitRequest:
    config = FitConfig(backbone="items", max_size=8, threads=1, device="cpu")
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    mask = PrefixMask(bounds.high, 8)
    training = config.gentle_training("squared", len(data.train), True).model_copy(update=values)
    table = torch.randn(data.n_items, 1, 8, generator=torch.Generator().manual_seed(3))
    recommender = config.recommender().model_copy(update={"training": training})
    return FitRequest(recommender, mask, 0, initial={"table": 0.1 * table})


def test_every_user_is_in_one_block_with_all_that_it_has(planted: Planted) -> None:
    data = planted.data
    found = blocks_of(data.train, data.n_users, data.n_items, 3, CPU)
    assert sorted(torch.cat([block.users for block in found]).tolist()) == list(range(data.n_users))
    pairs = torch.cat([torch.stack([b.users[b.history.pairs[0]], b.history.pairs[1]]) for b in found], 1).numpy()
    order = np.lexsort((pairs[1], pairs[0]))
    np.testing.assert_array_equal(pairs[:, order], np.stack([data.train.users, data.train.items]))


def test_as_many_as_keep_their_size_and_one_for_what_is_small() -> None:
    assert [block_count(pairs) for pairs in (0, 4_000_000, 4_000_001, 9_700_000)] == [1, 1, 5, 10]


def test_the_gradient_of_one_block_of_all_users_is_that_of_all(planted: Planted) -> None:
    data = planted.data
    training = Training(data, request(data), prepare(data, CPU))
    (whole,) = training.batches(1)
    everyone = torch.arange(data.n_users)
    block = Block(everyone, prepare(data, CPU).history)
    part = dataclasses.replace(whole, whole=block.history, of=training.backbone.with_users(everyone))
    gradients = []
    for batch in (whole, part):
        training.optimizer.zero_grad()
        training.optimizer.step = lambda: None  # type: ignore[method-assign]
        training.step(batch)
        gradients.append([parameter.grad.clone() for parameter in training.embedding.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def in_blocks(patch: pytest.MonkeyPatch, data: Any, count: int) -> None:
    patch.setattr(blocks, "BLOCK_PAIRS", len(data.train) // count)
    patch.setattr(blocks, "WHOLE_PAIRS", len(data.train) // 2)


def test_a_blocks_loss_is_that_of_data_of_its_users_alone(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataclasses.replace(planted.data)
    in_blocks(monkeypatch, data, 3)
    weights = {name: torch.full((data.n_items,), 0.7) for name in ("history_weight", "item_weight")}

    def training(of: Any) -> Training:
        plain = request(of)
        return Training(of, dataclasses.replace(plain, initial={**plain.initial, **weights}), prepare(of, CPU))

    whole = training(data)
    batches = list(whole.batches(1))
    assert len(batches) == whole.steps == 3
    for batch in batches:
        users = next(block.users for block in prepare(data, CPU).blocks if block.history is batch.whole)
        alone = training(data.of_users(users.numpy()))
        (other,) = alone.batches(1) if alone.steps == 1 else [None]
        assert other is not None
        losses = []
        for one, of in ((whole, batch), (alone, other)):
            one.optimizer.step = lambda: None  # type: ignore[method-assign]
            losses.append(float(one.step(of)))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_blocks_learn_what_the_whole_learns_in_fewer_epochs(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    data = planted.data
    start = fit(data, dataclasses.replace(request(data), epochs=0)).validation
    few = fit(data, dataclasses.replace(request(data), epochs=4)).validation
    in_blocks(monkeypatch, data, 8)
    blocked = fit(dataclasses.replace(data), dataclasses.replace(request(data), epochs=4)).validation
    assert start is not None and few is not None and blocked is not None
    assert blocked.mean_quality() > few.mean_quality() > start.mean_quality()


def test_equal_seeds_take_blocks_in_equal_order(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataclasses.replace(planted.data)
    in_blocks(monkeypatch, data, 5)
    first, second = (fit(data, dataclasses.replace(request(data), epochs=2)).table for _ in range(2))
    assert np.array_equal(first, second)
    training = Training(data, request(data), prepare(data, CPU))
    orders = [[len(batch.users) for batch in training.batches(epoch)] for epoch in (1, 2)]
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]
