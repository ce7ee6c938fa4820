"""Coordinate grids."""

import pytest
import torch

from polyinr_core.errors import ConfigError
from polyinr_core.models.coordinates import LearnedGrid, RegularGrid

F64 = {"dtype": torch.float64, "device": torch.device("cpu")}


def test_corners_are_pixels_and_x_runs_first() -> None:
    points = RegularGrid(3, 2, (-1.0, 0.0, 1.0, 4.0)).coordinates(**F64)
    expected = [[-1, 0], [0, 0], [1, 0], [-1, 4], [0, 4], [1, 4]]
    assert points.tolist() == [[*pair, 1.0] for pair in expected]


def test_tiles_are_cut_from_one_grid() -> None:
    grid = RegularGrid(7, 5, (-0.25, -0.5, 1.25, 1.5))
    whole = grid.coordinates(**F64)
    tiles = [grid.at(torch.arange(*span), dtype=torch.float64) for span in ((0, 11), (11, 35))]
    assert torch.equal(torch.cat(tiles), whole)


def test_a_wider_window_holds_the_unit_one() -> None:
    """Spacing 1/256: the unit square at 257 px is the middle of -0.25:1.25 at 385 px."""
    wide = RegularGrid(385, 385, (-0.25, -0.25, 1.25, 1.25)).coordinates(**F64).unflatten(0, (385, 385))
    unit = RegularGrid(257, 257).coordinates(**F64).unflatten(0, (257, 257))
    torch.testing.assert_close(wide[64:321, 64:321], unit, atol=1e-15, rtol=0)


def test_single_row_stands_in_the_middle() -> None:
    assert RegularGrid(2, 1).coordinates(**F64)[:, 1].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("width", "height", "bounds"),
    [
        (0, 4, (0, 0, 1, 1)),
        (4, 4, (0, 0, 0, 1)),
        (4, 4, (0, 0, 1, float("nan"))),
        (4, 4, (0, 0, float("inf"), 1)),
    ],
)
def test_empty_windows_are_refused(width: int, height: int, bounds: tuple) -> None:
    with pytest.raises(ConfigError):
        RegularGrid(width, height, bounds)


def test_learned_grid_gives_its_points() -> None:
    coordinates = torch.rand(6, 2)
    points = LearnedGrid(coordinates, 3, 2).at(torch.arange(2, 5), dtype=torch.float32)
    assert torch.equal(points[:, :2], coordinates[2:5])
    assert torch.equal(points[:, 2], torch.ones(3))
