"""The synthesis network in other number formats."""

import pytest
import torch
from rounding import assert_rounded, terms_of

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.backends import in_precision, is_faithful


@pytest.mark.parametrize("form", ["release", "paper"])
def test_narrow_products_between_wide_neighbors(form: str):
    """Oracle: float64. bfloat16 has 8 bits, 0.4 % a product: 2 % of the range over 4 levels."""
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(form=form, levels=4, channels=32, z_dim=8, w_dim=16)).eval()
    with torch.no_grad():
        for parameter in generator.synthesis.parameters():
            parameter.mul_(2.0)
        affine = generator.affine(generator.w(torch.randn(2, 8)))
        points = RegularGrid(1025, 1).coordinates()
        single = generator.synthesis(affine, points)
        narrow = in_precision(generator.synthesis, torch.bfloat16)(affine, points)
        exact = in_precision(generator.synthesis, torch.float64)(affine.double(), points.double())
    extent = float(exact.max() - exact.min())
    assert (single.dtype, narrow.dtype, exact.dtype) == (torch.float32, torch.float32, torch.float64)
    assert_rounded(single, exact, terms=terms_of(generator.config))
    assert 1e-6 * extent < (narrow - exact).abs().max() < 0.02 * extent


def generator_of(levels: int) -> tuple[Generator, torch.Tensor]:
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(levels=levels, channels=32, z_dim=8, w_dim=16)).eval()
    with torch.no_grad():
        return generator, generator.affine(generator.w(torch.randn(4, 8)))


@pytest.mark.parametrize(("levels", "bears"), [(4, True), (10, False)])
def test_whether_a_model_bears_bfloat16(levels: int, bears: bool):
    """Told by 1024 points; the oracle is the bound on every pixel, against float64."""
    generator, affine = generator_of(levels)
    wide, narrow = generator.synthesis, in_precision(generator.synthesis, torch.bfloat16)
    assert is_faithful(narrow, wide, affine) is bears
    assert is_faithful(wide, wide, affine)
    points = RegularGrid(64, 64).coordinates()
    with torch.no_grad():
        rounded = narrow(affine, points)
        exact = in_precision(wide, torch.float64)(affine.double(), points.double())
    steps = 127.5 * (rounded.clamp(-1, 1) - exact.clamp(-1, 1)).abs().amax(dim=-1)
    assert steps.max() > 0.05
    assert bool((steps > 2).double().mean() <= 0.001) is bears


@pytest.mark.parametrize(("gray", "bears"), [(0.1, False), (0.9, True)])
def test_one_percent_in_all_is_too_much(gray: float, bears: bool):
    """Off by half a step of 255 everywhere, which no pixel shows: much of a dark gray, little of a light one."""
    generator, affine = generator_of(4)
    with torch.no_grad():
        generator.synthesis.to_rgb.weight.mul_(1e-3)
        brighter = in_precision(generator.synthesis, torch.bfloat16)
        generator.synthesis.to_rgb.bias.fill_(gray)
        brighter.to_rgb.bias.fill_(gray + 0.5 / 127.5)
    assert is_faithful(brighter, generator.synthesis, affine) is bears
