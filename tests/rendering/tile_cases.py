"""Kernels against the definition: test_fused.py runs these under Triton's interpreter, a GPU without it."""

import numpy as np
import pytest
import torch
from test_forms import literal
from torch import Tensor
from triton import knobs
from triton import language as tl
from triton.runtime import interpreter

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import BlendGrid, RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.backends import in_precision
from polyinr_core.rendering.backends.triton import CUBLAS, Tile, TritonBackend

DEVICE = torch.device("cpu" if knobs.runtime.interpret else "cuda")
TYPES = {torch.float32: 1e-5, torch.bfloat16: 0.02}  # of the range: 8 bits are 0.4 % a product, over four levels


def widened(handle: interpreter.TensorHandle) -> np.ndarray:
    if handle.dtype.scalar != tl.bfloat16:
        return handle.data
    return torch.from_numpy(handle.data.view(np.int16)).view(torch.bfloat16).float().numpy()


def tf32(x: np.ndarray) -> np.ndarray:
    """Round float32 to the 10 bits of mantissa of TF32."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x in TF32, and what that leaves, as Triton's tf32x3 multiplies them: all but the product of the rests."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    return tf32(x), tf32(x - tf32(x))


@pytest.fixture(autouse=True)
def _bfloat16_in_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter multiplies the bits of bfloat16 as integers, and cuts where a GPU rounds."""
    convert = interpreter._convert_float

    def rounded(data: np.ndarray, source: tl.dtype, target: tl.dtype, mode: object) -> np.ndarray:
        if (source, target) != (tl.float32, tl.bfloat16):
            return convert(data, source, target, mode)
        return torch.from_numpy(np.array(data)).bfloat16().view(torch.int16).numpy().view(np.uint16)

    def dot(self: object, a: object, b: object, total: interpreter.TensorHandle, precision: object, *_: int) -> object:
        left, right = widened(a), widened(b)
        if "TF32x3" in str(precision):
            (left, left_rest), (right, right_rest) = (split(x) for x in (left, right))
            total = interpreter.TensorHandle(total.data + left @ right_rest + left_rest @ right, total.dtype.scalar)
        return interpreter.TensorHandle(left @ right + total.data, total.dtype.scalar)

    monkeypatch.setattr(interpreter, "_convert_float", rounded)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)


def network(form: str, n: int, *, levels: int = 4) -> tuple[Generator, Tensor]:
    """Return a network and w of two images that it draws differently."""
    torch.manual_seed(n)
    config = GeneratorConfig(form=form, levels=levels, channels=n, z_dim=8, w_dim=12)
    generator = Generator(config).to(DEVICE)
    with torch.no_grad():
        for parameter in generator.synthesis.parameters():
            parameter.mul_(2.0)
        return generator, generator.w(torch.randn(2, 8, device=DEVICE))


def some_points(*shape: int) -> Tensor:
    return torch.cat([torch.rand(*shape, 2), torch.ones(*shape, 1)], dim=-1).to(DEVICE)


def check(drawn: Tensor, exact: Tensor, tolerance: float) -> None:
    extent = float(exact.max() - exact.min())
    assert extent > 0
    assert drawn.shape == exact.shape
    assert float((drawn.double() - exact).abs().max()) < tolerance * extent


@torch.no_grad()
def against_float64(form: str, n: int, kind: torch.dtype, tile: Tile, *, levels: int = 4, count: int = 37) -> None:
    generator, w = network(form, n, levels=levels)
    affine, points = generator.affine(w), some_points(count)
    drawn = TritonBackend(in_precision(generator.synthesis, kind), tile=tile)(affine, points)
    check(drawn, literal(generator.double(), w.double(), points.double()), TYPES[kind])


@pytest.mark.parametrize("form", ["release", "paper"])
def test_quick(form: str) -> None:
    against_float64(form, 16, torch.float32, Tile(16, 16, 16), levels=3)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("form", ["release", "paper"])
def test_three_products_of_tf32_are_float32(form: str, whole: bool) -> None:
    """Tensor cores have no float32; one product of TF32 would be off by more than the tolerance of the next test."""
    tile = Tile(32, 32, 32, all_levels=whole, precision="tf32x3")
    against_float64(form, 48, torch.float32, tile)
    (a, rest_a), (b, rest_b) = pairs = [split(x) for x in np.random.default_rng(0).standard_normal((2, 64, 64))]
    exact = np.matmul(*(x.astype(np.float64) + rest for x, rest in pairs))
    assert np.abs(a @ b - exact).max() > 1e-3
    assert np.abs(a @ b + a @ rest_b + rest_a @ b - exact).max() < 1e-5


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("form", ["release", "paper"])
@torch.no_grad()
def test_products_of_cublas_between_kernels(form: str, per_image: bool, kind: torch.dtype) -> None:
    generator, w = network(form, 48)
    affine, points = generator.affine(w), some_points(*([2] if per_image else []), 37)
    drawn = TritonBackend(in_precision(generator.synthesis, kind), tile=CUBLAS)(affine, points)
    check(drawn, generator.double().synthesis(affine.double(), points.double()), TYPES[kind])


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("n", [16, 48, 64])
@pytest.mark.parametrize("form", ["release", "paper"])
def test_channels_and_formats(form: str, n: int, kind: torch.dtype, whole: bool) -> None:
    against_float64(form, n, kind, Tile(32, 32 if n == 48 else 64, 32, all_levels=whole))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("levels", "count"), [(2, 1), (3, 16), (5, 33)])
def test_levels_and_pixels(levels: int, count: int, whole: bool) -> None:
    against_float64("release", 16, torch.float32, Tile(16, 16, 16, all_levels=whole), levels=levels, count=count)


@pytest.mark.parametrize("whole", [False, True])
@torch.no_grad()
def test_the_literal_clamp(whole: bool) -> None:
    """The definition clamps at 256: some features are brought there."""
    generator, w = network("release", 16)
    for parameter in generator.synthesis.parameters():
        parameter.mul_(20.0)
    affine, points = generator.affine(w), some_points(37)
    drawn = TritonBackend(generator.synthesis, tile=Tile(16, 16, 16, all_levels=whole))(affine, points)
    assert any((h.abs() == 256).any() for h in generator.synthesis.features(affine, points))
    check(drawn, literal(generator.double(), w.double(), points.double()), 1e-5)


@pytest.mark.parametrize("whole", [False, True])
@torch.no_grad()
def test_own_points_of_each_image(whole: bool) -> None:
    generator, w = network("release", 16)
    affine, points = generator.affine(w), some_points(2, 20)
    drawn = TritonBackend(generator.synthesis, tile=Tile(16, 16, 16, all_levels=whole))(affine, points)
    check(drawn, generator.synthesis.double()(affine.double(), points.double()), 1e-5)


@pytest.mark.parametrize("whole", [False, True])
@torch.no_grad()
def test_a_blend(whole: bool) -> None:
    generator, w = network("release", 16)
    shares = torch.rand(1, 5, 4)
    blend = BlendGrid(RegularGrid(4, 5), torch.cat([shares, 1 - shares]))
    points = blend.at(torch.arange(20, device=DEVICE), dtype=torch.float32)
    affine = torch.cat(list(generator.affine(w)), dim=1).unsqueeze(0)  # [1, L, 6, n]
    drawn = TritonBackend(generator.synthesis, tile=Tile(16, 16, 16, all_levels=whole))(affine, points)
    check(drawn, generator.synthesis.double()(affine.double(), points.double()), 1e-5)
