"""Coordinate grids."""

import pytest
import torch

from polyinr_core.errors import ConfigError
from polyinr_core.models.coordinates import BlendGrid, LearnedGrid, RegularGrid, copy_on

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


def test_a_grid_s_tensors_move_to_a_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk after chunk of pixels asks for them."""
    index = torch.zeros(5, dtype=torch.int64, device="meta")
    grids = [LearnedGrid(torch.rand(12, 2), 4, 3), BlendGrid(RegularGrid(4, 3), torch.rand(2, 3, 4))]
    for grid in grids:
        assert [len(grid.at(index, dtype=torch.float32)) for _ in range(3)] == [5, 5, 5]
        (copied,) = grid.copies.values()
        monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **options: pytest.fail("copied again"))
        assert copy_on(index.device, torch.ones(1), grid.copies) is copied
        monkeypatch.undo()
