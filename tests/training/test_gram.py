"""The Gram matrix against the product of whole tables."""

import torch

from ciess.training.gram import ROWS, weighted_gram


def test_blocks_add_up_to_the_whole_product() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2 * ROWS + 3, 4, generator=generator, dtype=torch.float64)
    weights = torch.rand(len(rows), generator=generator, dtype=torch.float64)
    torch.testing.assert_close(weighted_gram(rows, weights), (rows * weights[:, None]).T @ rows)


def test_its_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(8, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(8, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: weighted_gram(x, weights), (rows,))
