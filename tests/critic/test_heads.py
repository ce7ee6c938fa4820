"""The division by sigma against autograd's gradient of its definition, in float64."""

import torch

from polyinr_core.critic.heads import DividedBySigma


def test_gradient_of_the_division_by_sigma() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    u, v = torch.randn(4, dtype=torch.float64), torch.randn(48, dtype=torch.float64)
    grad = torch.randn(4, 3, 4, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    plain, ours = weight / (u @ (weight.flatten(1) @ v)), DividedBySigma.apply(weight, u, v)
    torch.testing.assert_close(ours, plain, atol=1e-12, rtol=0)
    for found, expected in zip(
        torch.autograd.grad(ours, weight, grad), torch.autograd.grad(plain, weight, grad), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
