"""Drawing: the same bits whatever the band, the window's cut, or the batch."""

import pytest
import torch
from rounding import assert_rounded, terms_of

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering import render
from polyinr_core.rendering.render import pixels_per_batch, pixels_per_chunk, render_rows


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


def test_a_gpu_gets_more_pixels_at_a_time() -> None:
    """So that 132 multiprocessors have work, also where a tolerance picks single pixels."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for device, sizes in ((cpu, (2048, 512, 2**14)), (gpu, (2**14, 2**13, 2**17))):
        chunks = [pixels_per_chunk(device, are_scattered=are_scattered) for are_scattered in (False, True)]
        assert (*chunks, pixels_per_batch(device)) == sizes


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_every_product_has_the_device_s_size(
    generator: Generator, affine: torch.Tensor, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = set()

    def network(affine: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
        sizes.add(coordinates.shape[0])
        return coordinates[None]

    for chunks in ((2048, 512), (2**14, 2**13)):
        sizes.clear()
        monkeypatch.setattr(render, "pixels_per_chunk", lambda _, are_scattered=0, sizes=chunks: sizes[are_scattered])
        list(render_rows(network, affine[0], RegularGrid(70, 70), tolerance=tolerance))
        assert sizes == {chunks[1 if tolerance else 0]}
