from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ciess import load
from ciess.config.recommender import RecommenderConfig
from ciess.data.planted import Planted
from ciess.errors import ArtifactError, InputError
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.models.chained_embedding import Chain, ChainedEmbedding, sizes_of
from ciess.storage.storage import Storage
from ciess.tables.table import CompressedTable
from ciess.training.fit import fit
from ciess.training.loop import FitRequest

SIZES = (2, 4, 8)


def decoder_of(tables: int, bn_tanh: bool = True, sizes: tuple[int, ...] = SIZES) -> dict[str, torch.Tensor]:
    found = {}
    for number in range(2 * tables):
        chain = Chain(sizes, bn_tanh)
        chain.reset_parameters(0.1 + 0.1 * number, torch.Generator().manual_seed(number))
        if bn_tanh:
            assert chain.shift is not None
            torch.nn.init.normal_(chain.shift, generator=torch.Generator().manual_seed(number))
        found |= {f"decoder.{number}.{name}": value.detach() for name, value in chain.named_parameters()}
    return found


def mask_of(n: int, sizes: tuple[int, ...] = SIZES) -> PrefixMask:
    return PrefixMask(np.array(sizes)[np.random.default_rng(0).integers(0, len(sizes), n)], 16)


def table_of(n: int, tables: int) -> torch.Tensor:
    return torch.empty(n, tables, 16).normal_(generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("largest", SIZES)
@pytest.mark.parametrize("bn_tanh", [True, False])
@pytest.mark.parametrize("tables", [1, 2])
def test_every_row_goes_through_the_maps_above_its_size(tables: int, bn_tanh: bool, largest: int) -> None:
    """Row by row, map by map; rows of the largest size of the chain go through none."""
    decoder, mask = decoder_of(tables, bn_tanh), mask_of(30, tuple(size for size in SIZES if size <= largest))
    table = table_of(30, tables)
    found = ChainedEmbedding(table, mask, tables, decoder, n_users=20)()
    assert found.shape == (30, 8 * tables)
    for part in range(tables):
        for side, rows in enumerate((range(20), range(20, 30))):
            own = f"decoder.{2 * part + side}"
            values = []
            for row in rows:
                value = table[row, part, : mask.sizes[row]]
                for level in range(SIZES.index(int(mask.sizes[row])), len(SIZES) - 1):
                    value = decoder[f"{own}.maps.{level}.weight"] @ value + decoder[f"{own}.maps.{level}.bias"]
                values.append(value)
            expected = torch.stack(values)
            if bn_tanh:
                centred = (expected - expected.mean(0)) / (expected.var(0, unbiased=False) + 1e-5).sqrt()
                expected = torch.tanh(centred * decoder[f"{own}.scale"] + decoder[f"{own}.shift"])
            torch.testing.assert_close(found[list(rows), 8 * part : 8 * part + 8], expected, rtol=1e-5, atol=1e-6)


def test_what_the_mask_leaves_out_is_zero_and_gets_no_gradient() -> None:
    mask = mask_of(30)
    embedding = ChainedEmbedding(table_of(30, 2), mask, 2, decoder_of(2), n_users=20)
    functional.softplus(embedding()).sum().backward()
    kept = torch.from_numpy(np.tile(mask.dense(8), 2))
    assert embedding.weight.grad is not None
    assert (embedding.weight[~kept] == 0).all()
    assert (embedding.weight.grad[~kept] == 0).all()
    assert (embedding.weight.grad[kept] != 0).all()
    assert all(parameter.grad is not None for parameter in embedding.decoder.parameters())


def test_the_sizes_are_those_of_the_maps() -> None:
    assert sizes_of(decoder_of(1, sizes=(2, 4, 8, 16))) == (2, 4, 8, 16)
    with pytest.raises(InputError) as caught:
        sizes_of({"decoder.0.scale": torch.ones(3)})
    assert str(caught.value) == (
        "The decoder has the weights decoder.0.scale, but maps named decoder.0.maps.0.weight and on were expected. "
        "Give what an ESAPN search has found."
    )


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (PrefixMask(np.array([2, 3, 5]), 16), "[2, 3, 5]"),
        (SparseMask.from_dense(np.ones((3, 16), dtype=bool), 16), "single entries"),
    ],
)
def test_a_mask_of_other_sizes_is_refused(mask: Any, found: str) -> None:
    with pytest.raises(InputError) as caught:
        ChainedEmbedding(table_of(3, 1), mask, 1, decoder_of(1), n_users=2)
    assert str(caught.value) == (
        f"The mask keeps {found} a row, but the chain maps rows of the sizes 2, 4, 8. Give the mask and the decoder of "
        "one ESAPN search."
    )


def test_a_decoder_of_another_backbone_is_refused() -> None:
    with pytest.raises(InputError, match=r"The decoder has the weights .* were expected\. Give all that one ESAPN"):
        ChainedEmbedding(table_of(30, 2), mask_of(30), 2, decoder_of(1), n_users=20)


@pytest.mark.parametrize("backbone", ["lightgcn", "ngcf", "ncf"])
def test_a_fit_trains_rows_and_maps_and_the_saved_table_scores_the_same(
    planted: Planted, small_config: Callable[..., RecommenderConfig], tmp_path: Path, backbone: str
) -> None:
    data, config, tables = planted.data, small_config(backbone), 2 if backbone == "ncf" else 1
    mask, decoder = mask_of(data.n), decoder_of(tables)
    result = fit(data, FitRequest(config, mask, 0, epochs=2, decoder=decoder))
    assert result.table.shape == (data.n, 8 * tables)
    for name, value in decoder.items():
        assert (result.weights[name] != value.numpy()).any(), name
    table = CompressedTable.from_fit(data, data, config, mask, result, {})
    maps = 4 * sum(value.numel() for value in decoder.values())
    plain = 4 * sum(value.size for name, value in result.weights.items() if not name.startswith("decoder."))
    assert table.card["bytes"]["dense_parameters"] == plain + maps
    assert table.card["kept_parameters"] == tables * mask.kept
    table.save(Storage(tmp_path))
    again, users = load(tmp_path), torch.arange(data.n_users)
    np.testing.assert_array_equal(again.scores(users.numpy()), result.recommender.score_users(users).numpy())


def test_a_checkpoint_of_another_decoder_is_refused_by_its_fingerprint(
    planted: Planted, small_config: Callable[..., RecommenderConfig]
) -> None:
    def fingerprint(**changes: Any) -> str:
        return FitRequest(small_config(), mask_of(planted.data.n), 0, **changes).fingerprint(planted.data)

    other = decoder_of(1)
    other["decoder.0.maps.0.bias"] = other["decoder.0.maps.0.bias"] + 1
    assert len({fingerprint(), fingerprint(decoder=decoder_of(1)), fingerprint(decoder=other)}) == 3


def test_a_saved_decoder_that_does_not_fit_is_named(
    planted: Planted, small_config: Callable[..., RecommenderConfig]
) -> None:
    data, mask = planted.data, mask_of(planted.data.n)
    result = fit(data, FitRequest(small_config(), mask, 0, epochs=1, decoder=decoder_of(1)))
    del result.weights["decoder.1.shift"]
    table = CompressedTable.from_fit(data, data, small_config(), mask, result, {})
    with pytest.raises(ArtifactError, match=r"^The table cannot be decoded\. The decoder has the weights "):
        table.recommend(data.user_ids[0].as_py())
