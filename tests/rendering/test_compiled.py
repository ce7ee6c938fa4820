"""Drawing with torch.compile: the network's colors, whatever the number of pixels."""

import shutil

import pytest
import torch
from rounding import assert_rounded, terms_of
from torch import Tensor

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.backends import compiled
from polyinr_core.rendering.backends.compiled import Compiled
from polyinr_core.rendering.precision import in_precision


@torch.no_grad()
def check(form: str, dtype: torch.dtype, *, rows: int = 3) -> None:
    """Oracle: the network in float64; bfloat16 is 0.4 % a product, over three levels."""
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(form=form, levels=4, channels=16, z_dim=8, w_dim=12))
    for parameter in generator.synthesis.parameters():
        parameter.mul_(2.5)
    affine = generator.affine(generator.w(torch.randn(2, 8)))
    affine = affine.repeat(1, 1, rows // 3, 1)
    drawer = Compiled(in_precision(generator.synthesis, dtype))
    wide = torch.promote_types(dtype, torch.float32)
    cases: list[Tensor] = [torch.rand(*shape, rows) for shape in ((1,), (compiled.TILE + 1,), (2, 700))]
    drawn = [drawer(affine.to(wide), points.to(wide)) for points in cases]
    for points, colors in zip(cases, drawn, strict=True):
        exact = generator.synthesis.double()(affine.double(), points.double())
        assert colors.shape == exact.shape
        if dtype == torch.bfloat16:
            assert (colors.double() - exact).abs().max() < 0.02 * (exact.max() - exact.min())
        else:
            assert_rounded(colors, exact, terms=terms_of(generator.config))


@pytest.mark.parametrize("form", ["release", "paper"])
@pytest.mark.parametrize(("dtype", "rows"), [(torch.float32, 3), (torch.float64, 6), (torch.bfloat16, 3)])
def test_tiles_draw_the_network(form: str, dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the level as it is written; what a compiler makes of it is the next test's."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    check(form, dtype, rows=rows)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
def test_compiled_tiles_draw_the_network() -> None:
    check("release", torch.float32)
