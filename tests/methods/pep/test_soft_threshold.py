import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ciess.methods.pep.soft_threshold import Granularity, ThresholdedEmbedding, largest, soft_threshold

SHAPES: dict[Granularity, tuple[int, int]] = {
    "global": (1, 1),
    "dimension": (1, 6),
    "feature": (5, 1),
    "feature_dim": (5, 6),
}
every_granularity = pytest.mark.parametrize("granularity", SHAPES)


def drawn(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_granularity
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_formula(granularity: Granularity, scale: float) -> None:
    """sign(v) max(|v| - scale sigmoid(s), 0), entry by entry."""
    table, logits = drawn((5, 6)), drawn(SHAPES[granularity], 1)
    found = soft_threshold(table, logits, scale)
    kept = 0
    for row in range(5):
        for column in range(6):
            v = float(table[row, column])
            threshold = scale / (1 + math.exp(-float(logits.expand(5, 6)[row, column])))
            expected = math.copysign(max(abs(v) - threshold, 0), v)
            assert float(found[row, column]) == pytest.approx(expected, abs=1e-15)
            kept += abs(v) > threshold
    assert 0 < kept < 30


@every_granularity
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_gradient_is_that_of_finite_differences(granularity: Granularity, scale: float) -> None:
    table, logits = drawn((5, 6)), drawn(SHAPES[granularity], 1)
    gaps = (table.abs() - scale * logits.sigmoid()).abs()
    assert gaps.min() > 1e-4  # no entry within a difference of its kink
    torch.autograd.gradcheck(
        lambda v, s: soft_threshold(v, s, scale), (table.requires_grad_(), logits.requires_grad_()), eps=1e-6
    )


@every_granularity
def test_gradient_by_formula(granularity: Granularity) -> None:
    """dL/dv = dL/de of kept entries, dL/ds = -sum sign(v) g (1 - g / scale) dL/de over those that share s."""
    scale, table, logits = 2.0, drawn((5, 6)).requires_grad_(), drawn(SHAPES[granularity], 1).requires_grad_()
    upstream = drawn((5, 6), 2)
    soft_threshold(table, logits, scale).backward(upstream)
    threshold = scale * logits.detach().sigmoid()
    kept = table.detach().abs() > threshold
    into_logits = -(kept * table.detach().sign() * upstream * threshold * (1 - threshold / scale))
    for dimension, size in enumerate(SHAPES[granularity]):
        if size == 1:
            into_logits = into_logits.sum(dimension, keepdim=True)
    assert table.grad is not None
    assert logits.grad is not None
    assert torch.equal(table.grad, upstream * kept)
    torch.testing.assert_close(logits.grad, into_logits, rtol=1e-14, atol=0)


@given(st.floats(2**-20, 0.875, width=32), st.integers(1, 3))
def test_the_smallest_excess_over_the_threshold_is_kept_and_counted(value: float, ulps: int) -> None:
    """What is counted is what is not 0, down to the last bit."""
    table = torch.full((1, 1, 2), value)
    embedding = ThresholdedEmbedding(table, math.log(value / (1 - value)), 1.0, "feature_dim")
    threshold = float(embedding.thresholds()[0, 0])
    above = threshold
    for _ in range(ulps):
        above = float(np.nextafter(np.float32(above), np.float32(2)))
    with torch.no_grad():
        embedding.weight.copy_(torch.tensor([[threshold, -above]]))
    assert embedding().ne(0).tolist() == [[False, True]]
    assert embedding.kept() == 1
    assert (embedding.margins() > 0).tolist() == [[False, True]]


@every_granularity
def test_a_threshold_for_whom_it_is_for(granularity: Granularity) -> None:
    rows, columns = SHAPES[granularity]
    columns = 1 if columns == 1 else 12
    embedding = ThresholdedEmbedding(torch.ones(5, 2, 6), -1.0, 2.0, granularity)
    assert {name: tuple(value.shape) for name, value in embedding.named_parameters()} == {
        "weight": (5, 12),
        "logits": (rows, columns),
    }
    expected = 1 - 2 / (1 + math.e)
    torch.testing.assert_close(embedding(), torch.full((5, 12), expected))
    torch.testing.assert_close(embedding.margins(), torch.full((5, 12), expected))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20), st.data())
def test_largest_by_brute_force(values: list[int], draw: Any) -> None:
    count = draw.draw(st.integers(0, len(values)))
    margins = np.array([values], dtype=np.float32)
    in_order = sorted(range(len(values)), key=lambda position: (-values[position], position))
    found = largest(margins, count)
    assert found.shape == margins.shape
    assert sorted(np.flatnonzero(found)) == sorted(in_order[:count])
