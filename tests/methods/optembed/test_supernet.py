from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.config.models import WITHOUT_USERS
from ciess.data.planted import Planted
from ciess.devices import cpu_threads
from ciess.errors import FitError
from ciess.methods.optembed.supernet import LongTailedStep, Supernet, SupernetTraining, long_tailed, supernet_loss
from ciess.models import BACKBONES
from ciess.training.loop import build
from ciess.training.losses import Batch, bpr_loss
from ciess.training.prepared import prepare

Config = Callable[..., FitConfig]
every_backbone = pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in WITHOUT_USERS])
CPU = torch.device("cpu")


@pytest.fixture
def config(small_config: Callable[..., Any]) -> Config:
    """config(backbone, optembed={...}, **small_config's)."""

    def make(backbone: str = "lightgcn", optembed: dict[str, Any] | None = None, **others: Any) -> FitConfig:
        plain = small_config(backbone, **others).model_dump()
        return FitConfig.model_validate(plain | {"optembed": optembed or {}})

    return make


def random_net(tables: int = 1, thresholds: bool = True, seed: int = 0) -> Supernet:
    """4 users, 3 items, 6 columns, with norms on both sides of every threshold."""
    generator = torch.Generator().manual_seed(seed)
    initial = torch.randn(7, tables, 6, generator=generator)
    net = Supernet(initial, masks.full(7, 6), tables, 4, thresholds)
    with torch.no_grad():
        net.weight.mul_(torch.rand(7, tables, 1, generator=generator) * 2)
        if net.thresholds is not None:
            net.thresholds.copy_(torch.linspace(0.7, 1.1, 2 * tables))
    return net


def field(row: int, table: int) -> int:
    return 2 * table + (row >= 4)


class TestEstimator:
    @pytest.mark.parametrize(
        ("x", "slope"),
        [(0.0, 2.0), (0.1, 1.6), (0.3, 0.8), (0.4, 0.4), (0.41, 0.4), (0.7, 0.4), (1.0, 0.4), (1.001, 0.0), (9.0, 0.0)],
    )
    def test_by_formula(self, x: float, slope: float) -> None:
        found = long_tailed(torch.tensor([x, -x], dtype=torch.float64))
        torch.testing.assert_close(found, torch.full((2,), slope, dtype=torch.float64))

    def test_through_autograd(self) -> None:
        x = torch.tensor([-2.0, -0.7, -0.2, 0.0, 0.2, 0.7, 2.0], requires_grad=True)
        step = LongTailedStep.apply(x)
        assert step.tolist() == [0, 0, 0, 0, 1, 1, 1]
        upstream = torch.arange(1.0, 8.0)
        step.backward(upstream)
        torch.testing.assert_close(x.grad, upstream * torch.tensor([0, 0.4, 1.2, 2.0, 1.2, 0.4, 0]))

    @pytest.mark.parametrize("tables", [1, 2])
    def test_gradients_of_table_and_thresholds_by_hand(self, tables: int) -> None:
        """Of sum(G o output): d/dt_f = -sum over its rows of h <G, e>, d/de = m G + h <G, e> sign(e) / scale."""
        net = random_net(tables)
        upstream = torch.randn(7, tables, 6, generator=torch.Generator().manual_seed(5))
        sizes = torch.tensor([5, 2, 6, 3][: 2 * tables])
        (net(sizes) * upstream.reshape(7, -1)).sum().backward()
        table, by_threshold = torch.zeros_like(net.weight), torch.zeros(2 * tables)
        for row in range(7):
            for k in range(tables):
                f = field(row, k)
                e, g = net.weight[row, k].detach(), upstream[row, k].clone()
                g[int(sizes[f]) :] = 0
                x = e.abs().sum() / net.scale[f] - net.thresholds[f].detach()
                slope = long_tailed(x) * (g @ e)
                by_threshold[f] -= slope
                table[row, k] = (x > 0) * g + slope * e.sign() / net.scale[f]
        torch.testing.assert_close(net.weight.grad, table)
        torch.testing.assert_close(net.thresholds.grad, by_threshold)
        assert by_threshold.abs().min() > 0


class TestTable:
    @pytest.mark.parametrize("tables", [1, 2])
    @pytest.mark.parametrize("by_entity", [False, True])
    def test_sizes_and_dropped_rows(self, tables: int, by_entity: bool) -> None:
        """Against a loop over the entries."""
        net = random_net(tables)
        generator = torch.Generator().manual_seed(3)
        shape = (7, tables) if by_entity else (2 * tables,)
        sizes = torch.randint(1, 7, shape, generator=generator)
        found = net(sizes).detach().reshape(7, tables, 6)
        dropped = 0
        for row in range(7):
            for k in range(tables):
                norm = net.weight[row, k].abs().sum() / net.scale[field(row, k)]
                kept = bool(norm > net.thresholds[field(row, k)])
                dropped += not kept
                size = sizes[row, k] if by_entity else sizes[field(row, k)]
                for column in range(6):
                    value = net.weight[row, k, column] if kept and column < size else torch.zeros(())
                    assert found[row, k, column] == value
        assert 0 < dropped < 7 * tables

    def test_without_thresholds_nothing_is_dropped(self) -> None:
        net = random_net(thresholds=False)
        assert net.thresholds is None
        assert net().equal(net.weight.reshape(7, 6))
        assert net.kept().equal(torch.ones(7, 1))

    @pytest.mark.parametrize("factor", [0.01, 1.0, 50.0])
    def test_norms_start_at_1_whatever_the_scale(self, factor: float) -> None:
        initial = torch.randn(7, 2, 6, generator=torch.Generator().manual_seed(0)) * factor
        initial[:4] *= 3
        net = Supernet(initial, masks.full(7, 6), 2, 4, True)
        norms = net.weight.detach().abs().sum(2) / net.scale[net.fields]
        for k in range(2):
            assert norms[:4, k].mean() == pytest.approx(1)
            assert norms[4:, k].mean() == pytest.approx(1)

    @every_backbone
    def test_columns_that_no_field_keeps_need_not_exist(self, planted: Planted, config: Config, backbone: str) -> None:
        """Scores from the first columns are those of the full table with zeros after them."""
        data, settings = planted.data, config(backbone)
        model, table = build(data, settings, 0)
        model.eval()
        net = Supernet(table, masks.full(data.n, 16), model.tables, data.n_users, True)
        sizes = torch.tensor([3, 7, 5, 2][: 2 * model.tables])
        graph = prepare(data, CPU).graph(model.normalisation)
        users = torch.arange(data.n_users)
        with torch.no_grad():
            narrow = model.score_all(model.encode(net(sizes, 7), graph), users)
            wide = model.score_all(model.encode(net(sizes), graph), users)
        torch.testing.assert_close(narrow, wide)


class TestTraining:
    def training(self, planted: Planted, config: FitConfig, seed: int = 0) -> SupernetTraining:
        return SupernetTraining(planted.data, config, seed, prepare(planted.data, CPU))

    @every_backbone
    def test_thresholds_follow_the_penalty_alone_where_the_step_has_no_slope(
        self, planted: Planted, config: Config, backbone: str
    ) -> None:
        """t <- t + rate * alpha * exp(-t), in closed form per step, where every norm is above t + 1."""
        settings = config(backbone, {"threshold_learning_rate": 0.5, "threshold_penalty": 0.2}, learning_rate=1e-6)
        training = self.training(planted, settings)
        with torch.no_grad():
            training.embedding.weight *= 1000
        expected, steps = 0.0, 2 * training.prepared.sampler.steps(500)
        for epoch in (1, 2):
            training.epoch(epoch)
        for _ in range(steps):
            expected += 0.5 * 0.2 * np.exp(-expected)
        assert training.embedding.thresholds.tolist() == pytest.approx([expected] * len(training.embedding.names))

    def test_loss_is_the_fits_plus_the_penalty(self, planted: Planted, config: Config) -> None:
        settings = config(optembed={"threshold_penalty": 0.3}, decay=0.01)
        training = self.training(planted, settings)
        net, backbone = training.embedding, training.backbone
        with torch.no_grad():
            net.thresholds.copy_(torch.tensor([0.2, -0.1]))
        table = net()
        encoded = backbone.encode(table, training.graph)
        batch = torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5])
        found = supernet_loss(backbone, net, table, encoded, Batch(*batch), settings)
        expected = bpr_loss(backbone, table, encoded, *batch, 0.01) + 0.3 * (np.exp(-0.2) + np.exp(0.1))
        assert found.item() == pytest.approx(expected.item())

    @pytest.mark.parametrize(
        ("optembed", "works"),
        [({}, True), ({"threshold_learning_rate": 1e-4, "threshold_penalty": 1e-4}, False)],
        ids=["ours", "published"],
    )
    def test_drops_the_rows_with_tiny_norms(
        self, planted: Planted, config: Config, optembed: dict[str, float], works: bool
    ) -> None:
        """A fifth of the rows starts next to 0: they go, and no other does; with published settings none goes."""
        training = self.training(planted, config(optembed=optembed, learning_rate=1e-5))
        tiny = torch.arange(planted.data.n) % 5 == 0
        with torch.no_grad():
            training.embedding.weight[tiny] *= 1e-3
        training.epoch(1)
        dropped = training.embedding.kept()[:, 0] == 0
        assert dropped.tolist() == (tiny.tolist() if works else [False] * planted.data.n)

    @every_backbone
    def test_sizes_are_drawn_for_every_step(self, planted: Planted, config: Config, backbone: str) -> None:
        """Uniform in 1..max_size, one a field, and a function of seed and epoch alone."""
        training = self.training(planted, config(backbone))
        count = len(training.embedding.names)

        def drawn(epoch: int, steps: int) -> torch.Tensor:
            training.begin_epoch(epoch)
            sizes, widths = zip(*(training.draw_sizes() for _ in range(steps)), strict=True)
            assert [int(size.max()) for size in sizes] == list(widths)
            return torch.stack(sizes)

        sizes = drawn(1, 1600)
        assert sizes.shape == (1600, count)
        for of_field in sizes.T:
            counts = torch.bincount(of_field)
            assert len(counts) == 17
            assert counts[0] == 0
            assert counts[1:].min() > 60
        assert (sizes[:, 0] == sizes[:, 1]).float().mean() < 0.1
        assert drawn(1, 5).equal(sizes[:5])
        assert not drawn(2, 5).equal(sizes[:5])

    def test_sizes_of_every_entity(self, planted: Planted, config: Config) -> None:
        training = self.training(planted, config("ncf", {"per_entity": True}))
        training.begin_epoch(1)
        (first, width), (second, _) = training.draw_sizes(), training.draw_sizes()
        assert first.shape == second.shape == (planted.data.n, 2)
        assert not first.equal(second)
        assert (int(first.min()), int(first.max()), width) == (1, 16, 16)

    def test_share_of_kept_rows(self, planted: Planted, config: Config) -> None:
        training = self.training(planted, config("ncf"))
        with torch.no_grad():
            training.embedding.weight[:30, 0] = 0  # user-GMF: 30 of 120
            training.embedding.weight[120:140, 1] = 0  # item-tower: 20 of 80
        assert planted.data.n_items == 80
        shares = training.kept_rows()
        assert shares == pytest.approx({"user_gmf": 0.75, "item_gmf": 1.0, "user_tower": 1.0, "item_tower": 0.75})

    def test_a_field_without_rows_is_an_error(self, planted: Planted, config: Config) -> None:
        training = self.training(planted, config())
        with torch.no_grad():
            training.embedding.thresholds[1] = 50.0
        with pytest.raises(FitError) as error:
            training.kept_rows()
        assert str(error.value) == (
            "The threshold has dropped every row of the field item, but some must be left to search sizes for. Lower "
            "optembed.threshold_penalty or optembed.threshold_learning_rate, or set optembed.thresholds to false."
        )

    def test_only_thresholds_are_left_to_plain_descent(self, planted: Planted, config: Config) -> None:
        """Adam has table and backbone, all of them, and not the thresholds, whose first step it would make its own."""
        training = self.training(planted, config("ncf"))
        adam = {id(parameter) for group in training.optimizer.param_groups for parameter in group["params"]}
        everything = [*training.embedding.parameters(), *training.backbone.parameters()]
        assert adam == {id(parameter) for parameter in everything} - {id(training.embedding.thresholds)}

    @every_backbone
    def test_learns(self, planted: Planted, config: Config, backbone: str) -> None:
        with cpu_threads(1):
            training = self.training(planted, config(backbone))
            before = training.validate().mean_quality()
            losses = [training.epoch(epoch) for epoch in range(1, 13)]
            assert losses[-1] < 0.95 * losses[0]
            assert training.validate().mean_quality() > before
