"""The written-out gradient of a level against autograd's, in float64, where only the order of sums differs."""

import pytest
import torch
from torch.nn import functional

from polyinr_core.model.level import Level

N, P, n = 2, 6, 5


@pytest.mark.parametrize("own_points", [False, True])
@pytest.mark.parametrize("limit", [None, 0.4])
@pytest.mark.parametrize("bent", [False, True])
def test_gradients_are_those_of_the_definition(bent: bool, limit: float | None, own_points: bool) -> None:
    torch.manual_seed(0)
    shapes = [(N, P, n), (N, 3, n), (N, P, 3) if own_points else (P, 3), (n, n), (n,)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    h, matrix, points, weight, bias = inputs
    m = points @ matrix
    x = functional.leaky_relu(
        functional.linear(h * (functional.leaky_relu(m, 0.2) if bent else m), weight, bias), 0.2
    )
    if limit is not None:
        assert x.abs().max() > limit
        x = x.clamp(-limit, limit)
    ours = Level.apply(*inputs, bent, limit)
    torch.testing.assert_close(ours, x, atol=1e-12, rtol=0)
    grad = torch.randn_like(x)
    for found, expected in zip(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(x, inputs, grad), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
