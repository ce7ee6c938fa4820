"""Heat maps against their formula, all at once in float64."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from polyinr_core.errors import RequestError
from polyinr_core.images.grid import apply_colormap
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator, Synthesis
from polyinr_core.rendering.backends import in_precision
from polyinr_core.rendering.heatmap import colorize, feature_means, heat_rows, heatmap
from polyinr_core.rendering.model import load
from polyinr_core.rendering.viewport import Viewport

LEVELS = 4


@pytest.fixture(scope="module", params=["release", "paper"])
def generator(request: pytest.FixtureRequest) -> Generator:
    torch.manual_seed(0)
    config = GeneratorConfig(form=request.param, levels=LEVELS, channels=24, z_dim=8, w_dim=16)
    return Generator(config).eval().double()


@pytest.fixture(scope="module")
def affine(generator: Generator) -> torch.Tensor:
    with torch.no_grad():
        return 5 * generator.affine(generator.w(torch.randn(1, 8, dtype=torch.float64)))[0]


def at_once(generator: Generator, affine: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return sum_c mean_c x_c(p) of every level, [L, P], written out: Eq. 3 with this form's modulation."""
    release = generator.config.form == "release"
    x, found = torch.ones(len(points), affine.shape[-1], dtype=points.dtype), []
    for level, product in enumerate(generator.synthesis.products):
        m = points @ affine[level]
        if release and level > 0:
            m = torch.where(m > 0, m, 0.2 * m)
        x = (x * m) @ product.weight.T + product.bias
        x = torch.where(x > 0, x, 0.2 * x)
        if release:
            x = x.clamp(-256, 256)
        found.append((x * x.mean(dim=0)).sum(dim=1))
    return torch.stack(found)


def drawn(synthesis: Synthesis, affine: torch.Tensor, grid, levels: list[int], supersample: int = 1) -> torch.Tensor:
    """Return heat maps [H, W, K]."""
    means = feature_means(synthesis, affine, grid, levels=levels)
    bands = heat_rows(synthesis, affine, grid, means, levels=levels, supersample=supersample)
    return torch.cat(list(bands))


@pytest.mark.parametrize("levels", [[0, 1, 2, 3], [2], [0, 3]])
@torch.no_grad()
def test_heat_is_the_weighted_sum(generator: Generator, affine: torch.Tensor, levels: list[int]):
    """Three blocks of pixels, the last cut short; 1e-9 of what is summed."""
    grid = RegularGrid(70, 67, (-0.5, 0.0, 1.0, 2.0))
    points = grid.coordinates(dtype=torch.float64)
    expected = at_once(generator, affine, points)[levels].T.reshape(67, 70, len(levels))
    heat = drawn(generator.synthesis, affine, grid, levels)
    assert (heat.shape, heat.dtype) == ((67, 70, len(levels)), torch.float64)
    assert heat.std() > 1e-4
    torch.testing.assert_close(heat, expected, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_supersampled_heat_is_the_mean_of_its_points(generator: Generator, affine: torch.Tensor):
    view = Viewport(9, 7, supersample=3)
    grid = view.grid()
    points = grid.at(torch.arange(27 * 21), dtype=torch.float64)
    expected = at_once(generator, affine, points).reshape(LEVELS, 7, 3, 9, 3).mean(dim=(2, 4)).permute(1, 2, 0)
    heat = drawn(generator.synthesis, affine, grid, list(range(LEVELS)), supersample=3)
    torch.testing.assert_close(heat, expected, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_narrow_products_are_near(generator: Generator, affine: torch.Tensor):
    """bfloat16 has 8 bits: 3 % of the range, the sums themselves in float64."""
    grid = RegularGrid(20, 20)
    exact = drawn(generator.synthesis, affine, grid, [0, 3])
    network = in_precision(copy.deepcopy(generator.synthesis).float(), torch.bfloat16)
    means = feature_means(network, affine.float(), grid, levels=[0, 3])
    heat = torch.cat(list(heat_rows(network, affine.float(), grid, means, levels=[0, 3])))
    assert heat.dtype == torch.float64
    assert 0 < (heat - exact).abs().max() < 0.03 * exact.abs().max()


def test_progress_counts_pixels(generator: Generator, affine: torch.Tensor):
    reported: list[int] = []
    feature_means(generator.synthesis, affine, RegularGrid(70, 67), levels=[0], progress=reported.append)
    assert sum(reported) == 70 * 67
    assert len(reported) == 3


def test_from_python(tiny_class_checkpoint: Path) -> None:
    """[N, K, H, W], the levels in the order asked for, each image by itself."""
    model = load(tiny_class_checkpoint)
    latents = model.latents([3, 4])
    maps = heatmap(model, latents, levels=[2, 0], size=(9, 7), window=(0.0, 0.0, 2.0, 1.0))
    assert (maps.shape, maps.dtype) == ((2, 2, 7, 9), np.float32)
    affine = latents.affine[1]
    expected = drawn(model.synthesis, affine, RegularGrid(9, 7, (0.0, 0.0, 2.0, 1.0)), [0, 2])
    np.testing.assert_allclose(maps[1], expected.permute(2, 0, 1).flip(0), rtol=1e-6)
    assert heatmap(model, latents[0]).shape == (1, 3, 16, 16)
    with pytest.raises(RequestError, match="level 3 is out of range 0-2"):
        heatmap(model, latents, levels=[3])


def test_colors_over_an_image() -> None:
    heat, image = np.array([[0.0, 2.0]]), np.full((1, 2, 3), 100, dtype=np.uint8)
    expected = apply_colormap(np.array([[0.0, 1.0]]), "gray")
    assert np.array_equal(colorize(heat, "gray"), expected)
    blended = np.rint(0.75 * image + 0.25 * expected)
    assert np.array_equal(colorize(heat, "gray", image=image, opacity=0.25), blended)
    assert np.array_equal(colorize(np.full((1, 2), 5.0), "gray"), expected[:, [0, 0]])
