"""The written-out gradient of a level against autograd's, in float64, where only the order of sums differs."""

import pytest
import torch
from torch.nn import functional

from polyinr_core.models import layers as level
from polyinr_core.models.layers import Level

N, P, n = 2, 6, 5


@pytest.mark.parametrize("block", [2**18, 4 * n])
@pytest.mark.parametrize("own_points", [False, True])
@pytest.mark.parametrize("limit", [None, 0.4])
@pytest.mark.parametrize("bent", [False, True])
def test_gradients_are_those_of_the_definition(
    bent: bool, limit: float | None, own_points: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(level, "BLOCK", block)
    shapes = [(N, P, n), (N, 3, n), (N, P, 3) if own_points else (P, 3), (n, n), (n,)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    h, matrix, points, weight, bias = inputs
    m = points @ matrix
    x = functional.leaky_relu(functional.linear(h * (functional.leaky_relu(m, 0.2) if bent else m), weight, bias), 0.2)
    if limit is not None:
        assert x.abs().max() > limit
        x = x.clamp(-limit, limit)
    ours = Level.apply(*inputs, bent, limit, None)
    torch.testing.assert_close(ours, x, atol=1e-12, rtol=0)
    grad = torch.randn_like(x)
    for found, expected in zip(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(x, inputs, grad), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("device", ["cpu", "meta"])  # the second stands for whatever is no processor
def test_no_points(device: str) -> None:
    shapes = [(N, 0, n), (N, 3, n), (0, 3), (n, n), (n,)]
    inputs = [torch.ones(shape, device=device, requires_grad=True) for shape in shapes]
    x = Level.apply(*inputs, True, 256.0, None)
    assert x.shape == (N, 0, n)
    x.sum().backward()
    assert all(tensor.grad.shape == tensor.shape for tensor in inputs)


def test_products_in_bfloat16() -> None:
    """Oracle: the same in float64; 8 bits leave a hundredth. Gradients are in the format of their tensor."""
    torch.manual_seed(0)
    shapes = [(N, P, n), (N, 3, n), (P, 3), (n, n), (n,)]
    narrow = [torch.randn(shape, requires_grad=True) for shape in shapes]
    wide = [tensor.detach().double().requires_grad_() for tensor in narrow]
    ours, x = Level.apply(*narrow, True, 256.0, torch.bfloat16), Level.apply(*wide, True, 256.0, None)
    assert ours.dtype == torch.bfloat16
    assert (ours - x).norm() < 1e-2 * x.norm()
    found, expected = (torch.autograd.grad(y.sum(), inputs) for y, inputs in ((ours, narrow), (x, wide)))
    for own, plain in zip(found, expected, strict=True):
        assert own.dtype == torch.float32
        assert (own - plain).norm() < 2e-2 * plain.norm()


def test_features_alone_are_kept() -> None:
    """Of a level, what the next one reads too: one tensor of features each."""
    h = torch.randn(N, P, n, requires_grad=True)
    matrix, points, weight, bias = torch.randn(N, 3, n), torch.randn(P, 3), torch.randn(n, n), torch.randn(n)
    kept: set[int] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape == h.shape:
            kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for _ in range(4):
            h = Level.apply(h, matrix, points, weight, bias, True, 256.0, None)
    assert len(kept) == 5
