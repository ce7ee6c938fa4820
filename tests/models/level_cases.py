"""A level's training kernels against autograd in float64: test_level_triton.py interprets these, a GPU runs them."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from triton import knobs
from triton import language as tl
from triton.runtime import interpreter

from polyinr_core.models import layers
from polyinr_core.models.layers import LevelFunction
from polyinr_core.models.level_triton import FusedLevelFunction

DEVICE = torch.device("cpu" if knobs.runtime.interpret else "cuda")


@pytest.fixture(autouse=True)
def _rounding_in_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter cuts bfloat16 where a GPU rounds."""
    convert = interpreter._convert_float

    def rounded(data: np.ndarray, source: tl.dtype, target: tl.dtype, mode: object) -> np.ndarray:
        if (source, target) != (tl.float32, tl.bfloat16):
            return convert(data, source, target, mode)
        return torch.from_numpy(np.array(data)).bfloat16().view(torch.int16).numpy().view(np.uint16)

    monkeypatch.setattr(interpreter, "_convert_float", rounded)


def made(n: int, pixels: int, *, per_image: bool = False, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Return features, matrix, coordinates, weight and bias of two images."""
    rng = torch.Generator().manual_seed(n + pixels)
    shapes = [(2, pixels, n), (2, 3, n), (2, pixels, 3) if per_image else (pixels, 3), (n, n), (n,)]
    made = [torch.randn(shape, generator=rng) for shape in shapes]
    made[0], made[3] = made[0].to(dtype), made[3] / n**0.5
    return [tensor.to(DEVICE).requires_grad_(index != 2) for index, tensor in enumerate(made)]


def gradients(x: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.device, x.dtype)
    return [x, *torch.autograd.grad(x, [tensor for tensor in inputs if tensor.requires_grad], grad)]


def defined(inputs: list[torch.Tensor], is_release: bool, clamp: float | None) -> list[torch.Tensor]:
    """Return x and its gradients by autograd in float64."""
    inputs = [tensor.detach().double().requires_grad_(tensor.requires_grad) for tensor in inputs]
    h, matrix, coordinates, weight, bias = inputs
    m = coordinates @ matrix
    hm = h * (functional.leaky_relu(m, 0.2) if is_release else m)
    x = functional.leaky_relu(functional.linear(hm, weight, bias), 0.2)
    return gradients(x if clamp is None else x.clamp(-clamp, clamp), inputs)


def compare(found: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float) -> None:
    """By the norm: where a number is next to a kink or to the clamp, rounding chooses the side."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert other.norm() > 0
        assert (one.double() - other).norm() < tolerance * other.norm()


@pytest.mark.parametrize(("is_release", "clamp"), [(True, 1.0), (False, None)])
def test_quick(is_release: bool, clamp: float | None) -> None:
    inputs = made(20, 37)
    found = gradients(FusedLevelFunction.apply(*inputs, is_release, clamp, None), inputs)
    assert clamp is None or (found[0].abs() == clamp).any()
    compare(found, defined(inputs, is_release, clamp), 1e-5)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("chunk", [2**18, 70 * 50, 70 * 400])
@pytest.mark.parametrize(("n", "pixels"), [(16, 1), (70, 300)])
def test_sizes_and_chunks(n: int, pixels: int, chunk: int, per_image: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """More channels than a block, more pixels than a program sums, chunks of a part of an image, of one, of both."""
    for name in ("CHUNK_FEATURES", "GPU_CHUNK_FEATURES"):
        monkeypatch.setattr(layers, name, chunk)
    inputs = made(n, pixels, per_image=per_image)
    compare(gradients(FusedLevelFunction.apply(*inputs, True, 256.0, None), inputs), defined(inputs, True, 256.0), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("is_release", "clamp"), [(True, 256.0), (False, None)])
def test_products_in_bfloat16(is_release: bool, clamp: float | None, dtype: torch.dtype) -> None:
    """8 bits, and some signs that they change; as near to float64 as the plain form. Level 1 has float32 features."""
    inputs = made(48, 70, dtype=dtype)
    found = gradients(FusedLevelFunction.apply(*inputs, is_release, clamp, torch.bfloat16), inputs)
    plain = gradients(LevelFunction.apply(*inputs, is_release, clamp, torch.bfloat16), inputs)
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in plain]
    expected = defined(inputs, is_release, clamp)
    compare(found, expected, 0.1)
    for one, other, exact in zip(found, plain, expected, strict=True):
        assert (one.double() - exact).norm() < 1.5 * (other.double() - exact).norm()


def test_two_runs_are_equal_and_nothing_is_lost() -> None:
    inputs = made(20, 37)
    runs = [gradients(FusedLevelFunction.apply(*inputs, True, 256.0, None), inputs) for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))
    inputs[0].data[0, 3, 5] = torch.nan
    assert FusedLevelFunction.apply(*inputs, True, 256.0, None)[0, 3].isnan().all()


def test_no_pixels() -> None:
    inputs = made(16, 0)
    x = FusedLevelFunction.apply(*inputs, True, 256.0, None)
    assert x.shape == (2, 0, 16)
    x.sum().backward()
    assert not inputs[3].grad.any()
