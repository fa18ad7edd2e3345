import pytest
import torch
from torch import nn

from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.masks.sizes import equal, full
from ciess.training.fit import fit
from ciess.training.loop import FitRequest, build


def numbers(backbone: nn.Module) -> int:
    return sum(value.numel() for value in backbone.parameters())


def test_the_default_tower_is_256_128_64_32(planted: Planted, small_config) -> None:
    backbone, table = build(planted.data, small_config("ncf", model={"hidden": (128, 64, 32)}, max_size=128), seed=0)
    assert table.shape == (planted.data.n, 2, 128)
    # Layers with bias, and an output over 128 GMF columns and 32 of the tower; b of the output ranks nothing.
    assert numbers(backbone) == (256 * 128 + 128) + (128 * 64 + 64) + (64 * 32 + 32) + (128 + 32)


def test_the_published_shape_has_its_number_of_parameters(planted: Planted, small_config) -> None:
    backbone, _ = build(planted.data, small_config("ncf", model={"hidden": (128,)}, max_size=128), seed=0)
    assert numbers(backbone) == 33_153 - 1  # b of the output


def test_scores_are_those_of_neumf_on_concatenated_rows(planted: Planted, small_config) -> None:
    data = planted.data
    backbone, table = build(data, small_config("ncf"), seed=0)
    first = nn.utils.skip_init(nn.Linear, 32, 16)
    second = nn.utils.skip_init(nn.Linear, 16, 8)
    output = nn.utils.skip_init(nn.Linear, 16 + 8, 1, bias=False)
    with torch.no_grad():
        backbone.first_bias.normal_(generator=torch.Generator().manual_seed(0))
        first.weight.copy_(torch.cat([backbone.user_half, backbone.item_half]).T)
        first.bias.copy_(backbone.first_bias)
        second.load_state_dict(backbone.tower[0].state_dict())
        output.weight.copy_(torch.cat([backbone.gmf_output, backbone.tower_output])[None])
        table *= 30  # so that the ReLUs matter
        scores = backbone.score_all(backbone.encode(table.flatten(1)), torch.tensor([3, 50]))
        for row, user in enumerate((3, 50)):
            for item in (0, 7, data.n_items - 1):
                p, q = table[user], table[data.n_users + item]
                tower = second(first(torch.cat([p[1], q[1]])).relu()).relu()
                expected = output(torch.cat([p[0] * q[0], tower]))
                torch.testing.assert_close(scores[row, item], expected[0], rtol=1e-4, atol=1e-6)


def test_both_tables_have_the_size_of_the_entity(planted: Planted, small_config) -> None:
    data = planted.data
    mask = equal(data.n, 16, 0.75)
    table = fit(data, FitRequest(small_config("ncf"), mask, seed=0, epochs=1, evaluate=False)).table
    assert table.shape == (data.n, 2 * 4)
    assert (table != 0).all()
    assert table.size == 2 * mask.kept


def test_the_tower_is_as_wide_at_small_sizes(planted: Planted, small_config) -> None:
    data = planted.data
    shapes = []
    for mask in (full(data.n, 16), equal(data.n, 16, 0.9)):
        weights = fit(data, FitRequest(small_config("ncf"), mask, seed=0, epochs=1, evaluate=False)).weights
        shapes.append({name: value.shape for name, value in weights.items()})
    assert shapes[0] == shapes[1]
    assert shapes[1]["user_half"] == (16, 16)


@pytest.mark.parametrize("hidden", [(16,), (16, 8), (24, 12, 6, 3)])
def test_towers_of_any_depth_rank(tiny: Interactions, small_config, hidden: tuple[int, ...]) -> None:
    backbone, table = build(tiny, small_config("ncf", model={"hidden": hidden}), seed=0)
    scores = backbone.score_all(backbone.encode(table.flatten(1)), torch.arange(5))
    assert scores.shape == (5, 7)
    assert len(backbone.tower) == len(hidden) - 1


def test_initial_weights_are_xavier_of_the_whole_layer(tiny: Interactions, small_config) -> None:
    backbone, table = build(tiny, small_config("ncf", model={"hidden": (64, 32)}, max_size=128), seed=0)
    parts = {
        "user_half": (6 / (256 + 64)) ** 0.5,
        "item_half": (6 / (256 + 64)) ** 0.5,
        "tower.0.weight": (6 / (64 + 32)) ** 0.5,
        "gmf_output": (3 / (128 + 32)) ** 0.5,
        "tower_output": (3 / (128 + 32)) ** 0.5,
    }
    for name, bound in parts.items():
        assert 0.9 * bound < float(backbone.get_parameter(name).detach().abs().max()) <= bound
    for name in ("first_bias", "tower.0.bias"):
        assert backbone.get_parameter(name).eq(0).all()
    assert float(table.std()) == pytest.approx(0.01, rel=0.05)
