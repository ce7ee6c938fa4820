"""Tiles: they join without a seam, are the window that they say, and every level has pixels that differ."""

import numpy as np
import pytest
import torch

from polyinr_core.errors import RequestError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.render import render_rows
from polyinr_core.viewer.tiles import EXTENT, FIRST, LAST, LOW, SIDE, Tile, format_of, pitch, tiles_across


def test_one_tile_shows_the_world_and_its_middle_is_that_of_the_trained_square() -> None:
    assert tiles_across(FIRST) == 1
    x0, y0, x1, y1 = Tile(FIRST, 0, 0).bounds
    half = pitch(FIRST) / 2
    assert (x0 - half, y0 - half, x1 + half, y1 + half) == (LOW, LOW, LOW + EXTENT, LOW + EXTENT)
    assert LOW + EXTENT / 2 == 0.5
    assert tiles_across(12) * pitch(12) * SIDE == EXTENT


@pytest.mark.parametrize("level", [9, 21, LAST])
def test_a_tile_begins_a_pixel_after_its_neighbor(level: int) -> None:
    column = tiles_across(level) // 2
    left, right = Tile(level, column - 1, 0), Tile(level, column, 0)
    assert right.bounds[0] - left.bounds[2] == pitch(level)
    assert right.bounds[1] == left.bounds[1]
    below = Tile(level, column, 1)
    assert below.bounds[1] - right.bounds[3] == pitch(level)


@pytest.mark.parametrize("level", [FIRST, 20, LAST])
def test_places_are_whole_numbers_of_half_pixels(level: int) -> None:
    last = tiles_across(level) - 1
    view = Tile(level, last, last // 2).view(0)
    points = view.grid().at(torch.arange(0, SIDE * SIDE, 1001), dtype=torch.float64)
    halves = (points[:, :2] - LOW) / (pitch(level) / 2)
    assert torch.equal(halves, halves.round())
    assert (halves % 2 == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiles_join_to_the_image_drawn_whole(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    generator = Generator(GeneratorConfig(levels=2, channels=4, z_dim=4, w_dim=4)).to(dtype)
    affine = torch.randn(2, 3, 4, dtype=dtype)
    level, (column, row) = 16, (121, 122)  # a corner of four tiles within the square
    x0, y0, _, _ = Tile(level, column, row).bounds
    _, _, x1, y1 = Tile(level, column + 1, row + 1).bounds

    def drawn(grid: RegularGrid) -> np.ndarray:
        return torch.cat(list(render_rows(generator.synthesis, affine, grid))).numpy()

    whole = drawn(RegularGrid(2 * SIDE, 2 * SIDE, (x0, y0, x1, y1)))
    for down in (0, 1):
        for across in (0, 1):
            tile = drawn(Tile(level, column + across, row + down).view(0).grid())
            part = whole[down * SIDE : (down + 1) * SIDE, across * SIDE : (across + 1) * SIDE]
            assert np.array_equal(tile, part)
    assert whole.std() > 0


def test_pixels_that_are_larger_than_those_of_the_training_are_means() -> None:
    assert [Tile(level, 0, 0).view(32).supersample for level in (8, 9, 10)] == [2, 1, 1]
    assert Tile(8, 0, 0).view(256).supersample == 4
    assert Tile(8, 0, 0).view(0).supersample == 1


def test_each_format_ends_where_its_pixels_would_be_one() -> None:
    def formats(coarsest: torch.dtype) -> list[torch.dtype]:
        return [format_of(level, resolution=256, coarsest=coarsest) for level in range(FIRST, LAST + 1)]

    narrow = formats(torch.bfloat16)
    assert list(dict.fromkeys(narrow)) == [torch.bfloat16, torch.float32, torch.float64]
    assert narrow.count(torch.bfloat16) == 16 - FIRST + 1  # 16 pixels to one of 256
    assert set(formats(torch.float32)) == {torch.float32, torch.float64}
    assert set(formats(torch.float64)) == {torch.float64}
    for level, kind in zip(range(FIRST, LAST + 1), formats(torch.float32), strict=True):
        far = torch.tensor(LOW + EXTENT, dtype=kind)
        step = torch.nextafter(far, far * 2) - far
        assert pitch(level) >= 8 * step, level


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((FIRST - 1, 0, 0), "level 7 is outside 8-50"),
        ((LAST + 1, 0, 0), "level 51 is outside"),
        ((9, 2, 0), r"column 2 is outside 0-1 \(level 9\)"),
        ((9, 0, -1), "row -1 is outside 0-1"),
    ],
)
def test_a_tile_out_of_range_is_refused(place: tuple[int, int, int], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Tile(*place)
