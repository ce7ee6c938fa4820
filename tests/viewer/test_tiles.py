"""Tiles: they join without a seam, are the window that they say, and every level has pixels that differ."""

import numpy as np
import pytest
import torch

from polyinr_core.errors import RequestError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.render import render_rows
from polyinr_core.viewer.tiles import (
    MAX_LEVEL,
    MIN_LEVEL,
    TILE_SIZE,
    WORLD_MIN,
    WORLD_SIZE,
    TileIndex,
    dtype_of_level,
    pixel_size,
    tiles_across,
)


def test_one_tile_shows_the_world_and_its_middle_is_that_of_the_trained_square() -> None:
    assert tiles_across(MIN_LEVEL) == 1
    x0, y0, x1, y1 = TileIndex(MIN_LEVEL, 0, 0).window
    half = pixel_size(MIN_LEVEL) / 2
    assert (x0 - half, y0 - half, x1 + half, y1 + half) == (
        WORLD_MIN,
        WORLD_MIN,
        WORLD_MIN + WORLD_SIZE,
        WORLD_MIN + WORLD_SIZE,
    )
    assert WORLD_MIN + WORLD_SIZE / 2 == 0.5
    assert tiles_across(12) * pixel_size(12) * TILE_SIZE == WORLD_SIZE


@pytest.mark.parametrize("level", [9, 21, MAX_LEVEL])
def test_a_tile_begins_a_pixel_after_its_neighbor(level: int) -> None:
    column = tiles_across(level) // 2
    left, right = TileIndex(level, column - 1, 0), TileIndex(level, column, 0)
    assert right.window[0] - left.window[2] == pixel_size(level)
    assert right.window[1] == left.window[1]
    below = TileIndex(level, column, 1)
    assert below.window[1] - right.window[3] == pixel_size(level)


@pytest.mark.parametrize("level", [MIN_LEVEL, 20, MAX_LEVEL])
def test_places_are_whole_numbers_of_half_pixels(level: int) -> None:
    last = tiles_across(level) - 1
    view = TileIndex(level, last, last // 2).viewport(0)
    points = view.grid().at(torch.arange(0, TILE_SIZE * TILE_SIZE, 1001), dtype=torch.float64)
    halves = (points[:, :2] - WORLD_MIN) / (pixel_size(level) / 2)
    assert torch.equal(halves, halves.round())
    assert (halves % 2 == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiles_join_to_the_image_drawn_whole(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    generator = Generator(GeneratorConfig(levels=2, channels=4, z_dim=4, w_dim=4)).to(dtype)
    affine = torch.randn(2, 3, 4, dtype=dtype)
    level, (column, row) = 16, (121, 122)  # a corner of four tiles within the square
    x0, y0, _, _ = TileIndex(level, column, row).window
    _, _, x1, y1 = TileIndex(level, column + 1, row + 1).window

    def drawn(grid: RegularGrid) -> np.ndarray:
        return torch.cat(list(render_rows(generator.synthesis, affine, grid))).numpy()

    whole = drawn(RegularGrid(2 * TILE_SIZE, 2 * TILE_SIZE, (x0, y0, x1, y1)))
    for down in (0, 1):
        for across in (0, 1):
            tile = drawn(TileIndex(level, column + across, row + down).viewport(0).grid())
            part = whole[down * TILE_SIZE : (down + 1) * TILE_SIZE, across * TILE_SIZE : (across + 1) * TILE_SIZE]
            assert np.array_equal(tile, part)
    assert whole.std() > 0


def test_pixels_that_are_larger_than_those_of_the_training_are_means() -> None:
    assert [TileIndex(level, 0, 0).viewport(32).supersample for level in (8, 9, 10)] == [2, 1, 1]
    assert TileIndex(8, 0, 0).viewport(256).supersample == 4
    assert TileIndex(8, 0, 0).viewport(0).supersample == 1


def test_each_format_ends_where_its_pixels_would_be_one() -> None:
    def formats(dtype: torch.dtype) -> list[torch.dtype]:
        return [dtype_of_level(level, resolution=256, dtype=dtype) for level in range(MIN_LEVEL, MAX_LEVEL + 1)]

    narrow = formats(torch.bfloat16)
    assert list(dict.fromkeys(narrow)) == [torch.bfloat16, torch.float32, torch.float64]
    assert narrow.count(torch.bfloat16) == 16 - MIN_LEVEL + 1  # 16 pixels to one of 256
    assert set(formats(torch.float32)) == {torch.float32, torch.float64}
    assert set(formats(torch.float64)) == {torch.float64}
    for level, kind in zip(range(MIN_LEVEL, MAX_LEVEL + 1), formats(torch.float32), strict=True):
        far = torch.tensor(WORLD_MIN + WORLD_SIZE, dtype=kind)
        step = torch.nextafter(far, far * 2) - far
        assert pixel_size(level) >= 8 * step, level


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((MIN_LEVEL - 1, 0, 0), "level 7 is out of range 8-50"),
        ((MAX_LEVEL + 1, 0, 0), "level 51 is out of range"),
        ((9, 2, 0), r"column 2 is out of range 0-1 \(level 9\)"),
        ((9, 0, -1), "row -1 is out of range 0-1"),
    ],
)
def test_a_tile_out_of_range_is_refused(place: tuple[int, int, int], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        TileIndex(*place)
