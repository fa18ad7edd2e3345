import dataclasses
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from ciess import masks
from ciess.bench import step as bench_module
from ciess.bench.step import SizeBench, bench, bench_report
from ciess.config.recommender import RecommenderConfig
from ciess.data.planted import Planted
from ciess.devices import cpu_threads
from ciess.errors import InputError
from ciess.training.loop import FitRequest, Training
from ciess.training.losses import Batch
from ciess.training.prepared import Prepared

FULL = SizeBench(
    name="full",
    width=128,
    sparsity=0.0,
    step=50.0,
    sampling=2.0,
    propagation=30.0,
    optimiser=5.0,
    kernels={"csr int32, blocks of 16": 45.0, "csr int32, blocks of 32": 40.0},
    plain={"CSR int64": 150.0, "COO": 200.0},
    evaluation=0.5,
    steps_an_epoch=100,
    peak_memory=1234.4,
)
EQUAL = dataclasses.replace(
    FULL,
    name="equal 90 %",
    width=12,
    step=8.0,
    propagation=4.0,
    optimiser=1.0,
    kernels={"csr int32, blocks of 16": 5.0},
)


@pytest.fixture(params=["lightgcn", "ngcf", "ncf"])
def backbone(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_floor_is_the_fastest_kernel() -> None:
    assert FULL.floor == 40.0
    assert dataclasses.replace(FULL, kernels={}).floor == 0.0


def test_a_short_fit_is_five_epochs_and_an_evaluation() -> None:
    # 5 epochs of 100 steps of 52 ms, and half a second.
    assert FULL.short_training == pytest.approx(26.0)
    assert FULL.short_fit == pytest.approx(26.5)
    assert EQUAL.short_fit == pytest.approx(5.5)


def figures(text: str) -> dict[str, list[str]]:
    """Name of a figure -> its cells, one for each choice of sizes."""
    table = text.split("\n\n")[1].splitlines()
    cells = [re.split(r"\s{2,}", line.strip()) for line in table]
    return {"": cells[0]} | {name: values for name, *values in cells[1:]}


def test_report_of_known_figures(planted: Planted, small_config: Callable[..., RecommenderConfig]) -> None:
    text = bench_report(planted.data, small_config(), [FULL, EQUAL])
    assert text.splitlines()[0] == (
        f"lightgcn on planted: n = {planted.data.n:,}, {len(planted.data.train):,} training pairs, batch 500, "
        "1 threads, cpu"
    )
    found = figures(text)
    for name, expected in {
        "": ["full", "equal 90 %"],
        "columns": ["128", "12"],
        "step / floor": ["1.25", "1.60"],  # 50 / 40, 8 / 5
        "step / full step": ["1.00", "0.16"],  # 50 / 50, 8 / 50
        "CSR int64 / step": ["3.00", "18.75"],  # 150 / 50, 150 / 8
        "COO / step": ["4.00", "25.00"],
        "evaluation / full step": ["10.00", "10.00"],  # 500 / 50
        "evaluation / short training": ["0.019", "0.100"],  # 0.5 / 26, 0.5 / 5
        "sampling": ["3.8%", "20.0%"],  # 2 / 52, 2 / 10
        "propagation": ["57.7%", "40.0%"],
        "optimiser": ["9.6%", "10.0%"],
        "rest": ["28.8%", "30.0%"],  # 15 / 52, 3 / 10
        "step ms": ["50.00", "8.00"],
        "floor ms": ["40.00", "5.00"],
        "short fit s": ["26.5", "5.5"],
        "search min": ["132.5", "27.5"],  # 300 of them
    }.items():
        assert found[name] == expected, name
    kernels = [line.split()[-1] for line in text.splitlines() if line.startswith("  csr")]
    assert kernels == ["40.00", "45.00", "5.00"]
    assert "peak memory of steps and evaluations at full sizes: 1,234 MiB" in text


def test_report_without_graph_and_plain_versions(
    planted: Planted, small_config: Callable[..., RecommenderConfig]
) -> None:
    bare = dataclasses.replace(FULL, kernels={}, plain={}, propagation=0.0)
    found = figures(bench_report(planted.data, small_config("ncf"), [bare]))
    assert found["step / floor"] == found["floor ms"] == ["-"]
    assert not any("COO" in name or "CSR" in name for name in found)
    assert found["rest"] == ["86.5%"]  # 45 / 52


def test_bench_of_planted_data(planted: Planted, small_config: Callable[..., RecommenderConfig], backbone: str) -> None:
    config = small_config(backbone, max_size=32, batch_size=400)
    data = planted.data
    sizes = bench(data, config, rounds=1)
    assert [size.name for size in sizes] == ["full", "equal 90 %", "mixed 90 %"]
    # floor(0.1 * 32), and up to floor(0.2 * 32 - 1).
    assert [size.width for size in sizes] == [32, 3, masks.mixed(data.n, 32, "0.9", seed=0).width]
    assert [size.sparsity >= 0.9 for size in sizes] == [False, True, True]
    for size in sizes:
        assert size.steps_an_epoch == -(-len(data.train) // 400)
        assert min(size.step, size.sampling, size.optimiser, size.evaluation) > 0
        assert bool(size.kernels) == (size.propagation > 0) == (backbone != "ncf")
        assert set(size.plain) == ({"CSR int64", "COO"} if backbone == "lightgcn" else set())
        assert all(value > 0 for value in [*size.kernels.values(), *size.plain.values()])
    if backbone == "lightgcn":
        for size, blocks in zip(sizes, [(16, 32), (16,), (16,)], strict=True):
            kernels = {f"{kernel}, blocks of {block}" for kernel in ("csr int32", "csr int64 sum") for block in blocks}
            assert set(size.kernels) == kernels
    text = bench_report(data, config, sizes)
    assert text.startswith(f"{backbone} on planted")
    found = figures(text)
    for column in range(3):
        shares = [float(found[name][column][:-1]) for name in ("sampling", "propagation", "optimiser", "rest")]
        assert sum(shares) == pytest.approx(100, abs=0.3)


@pytest.mark.parametrize("rounds", [0, -1])
def test_no_rounds(planted: Planted, small_config: Callable[..., RecommenderConfig], rounds: int) -> None:
    with pytest.raises(InputError, match=f"rounds is {rounds}"):
        bench(planted.data, small_config(), rounds)


def test_variants_are_timed_in_turn_and_the_first_round_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []

    def run(name: str, seconds: list[float], number: int) -> None:
        calls.append((name, number))
        clock[0] += seconds[number]

    monkeypatch.setattr(bench_module.time, "perf_counter", lambda: clock[0])
    timed: dict[str, Any] = {
        "a": partial(run, "a", [900.0, 1.0, 3.0, 2.0]),
        "b": partial(run, "b", [0.0, 4.0, 4.0, 90.0]),
    }
    medians = bench_module._medians(timed, 3, torch.device("cpu"))
    assert medians == pytest.approx({"a": 2000.0, "b": 4000.0})
    assert calls == [(name, number) for number in range(4) for name in "ab"]


@pytest.fixture
def training(planted: Planted, small_config: Callable[..., RecommenderConfig]) -> Callable[[str], Training]:
    def make(backbone: str) -> Training:
        config = small_config(backbone, max_size=40, decay=0.01)
        prepared = Prepared(planted.data, torch.device("cpu"))
        return Training(planted.data, FitRequest(config, masks.full(planted.data.n, 40), seed=0), prepared)

    return make


@pytest.mark.parametrize(
    ("backbone", "columns"),
    [("lightgcn", [40, 40, 40]), ("ngcf", [40, 12, 12])],
)
def test_every_kernel_makes_all_products_of_a_step(
    training: Callable[[str], Training], backbone: str, columns: list[int]
) -> None:
    """Forward and backward: twice as many columns as the layers have, in blocks."""
    made = training(backbone)
    assert made.graph is not None
    kernels = bench_module._kernels(made.graph, 40, 3, made.request.config)
    assert len(kernels) == 6
    for name, kernel in kernels.items():
        assert isinstance(kernel, partial)
        product, parts = kernel.args
        block = int(name.rsplit(" ", 1)[1])
        assert sum(part.shape[1] for part in parts) == 2 * sum(columns)
        assert max(part.shape[1] for part in parts) == min(block, 40)
        x = parts[0]
        torch.testing.assert_close(product(x), made.graph.matrix.to_dense() @ x)


def test_plain_steps_do_what_a_step_does(training: Callable[[str], Training], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratios to the plain versions are honest: the same loss, so the same gradient of the table."""
    made = training("lightgcn")
    batches = made.prepared.sampler.epoch(0, 1, 500, "user")
    tables: list[Any] = []
    adam = torch.optim.Adam

    def spy(parameters: Any, **settings: Any) -> Any:
        tables.extend(parameters)
        return adam(parameters, **settings)

    with cpu_threads(1):
        monkeypatch.setattr(bench_module.torch.optim, "Adam", spy)
        plain = bench_module._plain_steps(made, made.request.config, 3, batches)
        for run in plain.values():
            run(0)
        made.step(Batch(batches.users[0], batches.positives[0], batches.negatives[0]))
    (embedding,) = [value for value in made.embedding.parameters() if value.numel()]
    expected = embedding.grad
    assert expected is not None
    assert len(tables) == 2
    assert float(expected.abs().max()) > 0
    for table in tables:
        np.testing.assert_allclose(
            table.grad.numpy(),
            expected.numpy().reshape(table.shape),
            rtol=1e-3,
            atol=1e-5 * float(expected.abs().max()),
        )
