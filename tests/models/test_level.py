"""The hand-written gradient of a level against autograd's, in float64, where only the order of the sums differs."""

import pytest
import torch
from torch.nn import functional

from polyinr_core.models import layers
from polyinr_core.models.layers import LevelFunction

N, P, n = 2, 6, 5


@pytest.mark.parametrize("chunk", [2**18, 4 * n])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("clamp", [None, 0.4])
@pytest.mark.parametrize("is_release", [False, True])
def test_gradients_are_those_of_the_definition(
    is_release: bool, clamp: float | None, per_image: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(layers, "CHUNK_FEATURES", chunk)
    shapes = [(N, P, n), (N, 3, n), (N, P, 3) if per_image else (P, 3), (n, n), (n,)]
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    differentiable = [tensor.requires_grad_() for tensor in (*inputs[:2], *inputs[3:])]
    h, matrix, coordinates, weight, bias = inputs
    m = coordinates @ matrix
    x = functional.leaky_relu(
        functional.linear(h * (functional.leaky_relu(m, 0.2) if is_release else m), weight, bias), 0.2
    )
    if clamp is not None:
        assert x.abs().max() > clamp
        x = x.clamp(-clamp, clamp)
    ours = LevelFunction.apply(*inputs, is_release, clamp, None)
    torch.testing.assert_close(ours, x, atol=1e-12, rtol=0)
    grad = torch.randn_like(x)
    for found, expected in zip(
        torch.autograd.grad(ours, differentiable, grad), torch.autograd.grad(x, differentiable, grad), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("device", ["cpu", "meta"])  # the second stands for every other device
def test_no_pixels(device: str) -> None:
    shapes = [(N, 0, n), (N, 3, n), (0, 3), (n, n), (n,)]
    inputs = [torch.ones(shape, device=device, requires_grad=True) for shape in shapes]
    x = LevelFunction.apply(*inputs, True, 256.0, None)
    assert x.shape == (N, 0, n)
    x.sum().backward()
    assert all(tensor.grad.shape == tensor.shape for tensor in (*inputs[:2], *inputs[3:]))


def test_products_in_bfloat16() -> None:
    """Oracle: the same in float64; 8 bits give an error of a hundredth. Gradients have the dtype of their tensor."""
    torch.manual_seed(0)
    shapes = [(N, P, n), (N, 3, n), (P, 3), (n, n), (n,)]
    narrow = [torch.randn(shape, requires_grad=True) for shape in shapes]
    wide = [tensor.detach().double().requires_grad_() for tensor in narrow]
    ours, x = LevelFunction.apply(*narrow, True, 256.0, torch.bfloat16), LevelFunction.apply(*wide, True, 256.0, None)
    assert ours.dtype == torch.bfloat16
    assert (ours - x).norm() < 1e-2 * x.norm()
    found, expected = (torch.autograd.grad(y.sum(), [*t[:2], *t[3:]]) for y, t in ((ours, narrow), (x, wide)))
    for own, plain in zip(found, expected, strict=True):
        assert own.dtype == torch.float32
        assert (own - plain).norm() < 2e-2 * plain.norm()


def test_only_features_are_saved() -> None:
    """Of each level one tensor of features, which the next one reads too."""
    h = torch.randn(N, P, n, requires_grad=True)
    matrix, coordinates, weight, bias = torch.randn(N, 3, n), torch.randn(P, 3), torch.randn(n, n), torch.randn(n)
    kept: set[int] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape == h.shape:
            kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for _ in range(4):
            h = LevelFunction.apply(h, matrix, coordinates, weight, bias, True, 256.0, None)
    assert len(kept) == 5


def test_on_a_gpu_a_level_s_buffers_are_bounded() -> None:
    """A batch of 32 images of 256 px with 512 channels would need four buffers of 4 GiB, whole."""
    h = torch.empty(32, 256**2, 512, device="meta")
    chunks = list(layers.level_chunks(h))
    assert chunks[0] == (slice(0, 1), slice(0, 65536))
    assert len(chunks) == 32
    assert layers.workspaces(h, torch.float32, 3).nbytes == 3 * 2**27
    assert len(list(layers.level_chunks(h[:, :1024]))) == 1  # 32 px at once
