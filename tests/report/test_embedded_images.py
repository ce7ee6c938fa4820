"""Images in a page: exact if small, reduced if large; damaged grids."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polyinr_core.report.nearest_neighbors import COLUMNS, MIN_TILE_SIZE, THUMBNAIL_SIZE, make_thumbnails, realism_grid
from polyinr_core.report.page import MAX_GRID_SIZE, embed, read_grid


def decoded(source: str) -> Image.Image:
    kind, _, data = source.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{image.format.lower()}"
    return image


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_small_images_are_png_and_large_noisy_ones_jpeg() -> None:
    small, large = noise(32, 24), noise(300, 400)
    assert np.array_equal(np.asarray(decoded(embed(small).source)), small)
    assert (embed(small).width, embed(small).height, embed(small).pixelated) == (24, 32, True)
    assert decoded(embed(large).source).format == "JPEG"
    assert not embed(large).pixelated
    flat = np.zeros((300, 400, 3), dtype=np.uint8)
    assert decoded(embed(flat).source).format == "PNG"


def test_thumbnails_are_area_averaged() -> None:
    """Oracle: the mean of blocks of 2 x 2."""
    pixels = torch.from_numpy(noise(2 * THUMBNAIL_SIZE, 2 * THUMBNAIL_SIZE)).permute(2, 0, 1)[None]
    blocks = pixels[0].double().unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(3, 4)).permute(1, 2, 0)
    assert np.abs(make_thumbnails(pixels)[0] - blocks.numpy()).max() <= 0.75  # rounded to integer gray levels
    small = torch.from_numpy(noise(THUMBNAIL_SIZE, THUMBNAIL_SIZE)).permute(2, 0, 1)[None]
    assert np.array_equal(make_thumbnails(small)[0], small[0].permute(1, 2, 0).numpy())


def test_large_and_damaged_grids(tmp_path: Path) -> None:
    Image.fromarray(noise(30, 2 * MAX_GRID_SIZE)).save(tmp_path / "large.png")
    sheet = read_grid(tmp_path / "large.png")
    assert sheet is not None
    assert sheet.shape == (15, MAX_GRID_SIZE, 3)
    whole = (tmp_path / "large.png").read_bytes()
    for name, data in {"torn.png": whole[:3000], "empty.png": b"", "text.png": b"<svg/>"}.items():
        (tmp_path / name).write_bytes(data)
        assert read_grid(tmp_path / name) is None
    assert read_grid(tmp_path / "gone.png") is None


@pytest.mark.parametrize("resolution", [4, 100])
def test_realism_grid_enlarges_by_integer_factors(resolution: int) -> None:
    image = noise(resolution, resolution)
    page = realism_grid({"best": [(image, "1.2")] * (COLUMNS + 1), "worst": [(image, "0.1")]})
    factor = -(-MIN_TILE_SIZE // resolution)
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    top = next(y for y in range(60) if np.array_equal(page[y : y + len(large), : len(large)], large))
    assert (page[:top].min(axis=(1, 2)) < 128).any()  # the title's letters
    assert page.shape[1] == COLUMNS * len(large) + (COLUMNS - 1) * 2
