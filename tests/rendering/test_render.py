"""Drawing: the same bits whatever the band, the window's cut, or the batch."""

import pytest
import torch
from rounding import assert_rounded, terms_of

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.render import render_rows


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(GeneratorConfig(channels=48, z_dim=8, w_dim=16)).eval()


@pytest.fixture(scope="module")
def affine(generator: Generator) -> torch.Tensor:
    with torch.no_grad():
        return 10 * generator.affine(generator.w(torch.randn(2, 8)))


@pytest.mark.parametrize("rows", [None, 1, 7, 70])
def test_bands(generator: Generator, affine: torch.Tensor, rows: int | None) -> None:
    grid = RegularGrid(61, 70)
    bands = list(render_rows(generator.synthesis, affine[0], grid, rows=rows))
    assert all(band.shape[1:] == (61, 3) for band in bands)
    assert all(len(band) == len(bands[0]) for band in bands[:-1])
    whole = torch.cat(bands)
    assert whole.shape == (70, 61, 3)
    assert whole.std() > 0.01
    with torch.no_grad():
        points = grid.coordinates()
        at_once = generator.synthesis(affine[:1], points)[0]
    assert_rounded(whole.flatten(0, 1), at_once, terms=terms_of(generator.config))  # other product shapes
    assert torch.equal(whole, torch.cat(list(render_rows(generator.synthesis, affine[0], grid, rows=13))))


def test_a_part_of_the_window_has_the_whole_s_pixels(generator: Generator, affine: torch.Tensor) -> None:
    """65 columns at spacing 1/64, then only its left and upper parts: the same points, the same bits."""
    whole = torch.cat(list(render_rows(generator.synthesis, affine[1], RegularGrid(65, 65))))
    part = torch.cat(list(render_rows(generator.synthesis, affine[1], RegularGrid(33, 17, (0, 0, 0.5, 0.25)))))
    assert torch.equal(part, whole[:17, :33])
