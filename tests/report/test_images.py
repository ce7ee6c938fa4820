"""Images inside a page: exact where that is small, reduced where they are large; damaged sheets."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polyinr_core.report.nearest_neighbors import COLUMNS, SIDE, realism_sheet
from polyinr_core.report.page import SHEET, TILE, read_sheet, shown, tiles


def decoded(source: str) -> Image.Image:
    kind, _, data = source.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{image.format.lower()}"
    return image


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_small_image_is_exact_and_a_large_noisy_one_jpeg() -> None:
    small, large = noise(32, 24), noise(300, 400)
    assert np.array_equal(np.asarray(decoded(shown(small).source)), small)
    assert (shown(small).width, shown(small).height, shown(small).small) == (24, 32, True)
    assert decoded(shown(large).source).format == "JPEG"
    assert not shown(large).small
    flat = np.zeros((300, 400, 3), dtype=np.uint8)
    assert decoded(shown(flat).source).format == "PNG"


def test_tiles_are_reduced_by_area() -> None:
    """Oracle: the mean of blocks of 2 x 2."""
    pixels = torch.from_numpy(noise(2 * TILE, 2 * TILE)).permute(2, 0, 1)[None]
    blocks = pixels[0].double().unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(3, 4)).permute(1, 2, 0)
    assert np.abs(tiles(pixels)[0] - blocks.numpy()).max() <= 0.75  # rounded to whole gray levels
    small = torch.from_numpy(noise(TILE, TILE)).permute(2, 0, 1)[None]
    assert np.array_equal(tiles(small)[0], small[0].permute(1, 2, 0).numpy())


def test_a_large_sheet_is_reduced_and_a_damaged_one_none(tmp_path: Path) -> None:
    Image.fromarray(noise(30, 2 * SHEET)).save(tmp_path / "large.png")
    sheet = read_sheet(tmp_path / "large.png")
    assert sheet is not None
    assert sheet.shape == (15, SHEET, 3)
    whole = (tmp_path / "large.png").read_bytes()
    for name, data in {"torn.png": whole[:3000], "empty.png": b"", "text.png": b"<svg/>"}.items():
        (tmp_path / name).write_bytes(data)
        assert read_sheet(tmp_path / name) is None
    assert read_sheet(tmp_path / "gone.png") is None


@pytest.mark.parametrize("side", [4, 100])
def test_the_realism_sheet_enlarges_by_whole_factors(side: int) -> None:
    image = noise(side, side)
    page = realism_sheet({"best": [(image, "1.2")] * (COLUMNS + 1), "worst": [(image, "0.1")]})
    factor = -(-SIDE // side)
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    top = next(y for y in range(60) if np.array_equal(page[y : y + len(large), : len(large)], large))
    assert (page[:top].min(axis=(1, 2)) < 128).any()  # the title's letters
    assert page.shape[1] == COLUMNS * len(large) + (COLUMNS - 1) * 2
