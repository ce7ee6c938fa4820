"""The synthesis network in other number formats."""

import pytest
import torch

from polyinr_core.model import Generator, GeneratorConfig, RegularGrid
from polyinr_core.model.precision import in_precision


@pytest.mark.parametrize("form", ["release", "paper"])
def test_narrow_products_between_wide_neighbours(form: str):
    """Oracle: float64. bfloat16 has 8 bits, 0.4 % a product: 2 % of the range over 4 levels."""
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(form=form, levels=4, channels=32, z_dim=8, w_dim=16)).eval()
    with torch.no_grad():
        for parameter in generator.synthesis.parameters():
            parameter.mul_(2.0)
        affine = generator.affine(generator.w(torch.randn(2, 8)))
        points = RegularGrid(1025, 1).points(0, 1025, dtype=torch.float32, device=torch.device("cpu"))
        single = generator.synthesis(affine, points)
        narrow = in_precision(generator.synthesis, torch.bfloat16)(affine, points)
        exact = in_precision(generator.synthesis, torch.float64)(affine.double(), points.double())
    extent = float(exact.max() - exact.min())
    assert (single.dtype, narrow.dtype, exact.dtype) == (torch.float32, torch.float32, torch.float64)
    assert (single - exact).abs().max() < 1e-5 * extent
    assert 1e-6 * extent < (narrow - exact).abs().max() < 0.02 * extent
