"""Contact sheets."""

import numpy as np
import pytest

from polyinr_core.images.grid import grid_layout, make_grid


def test_images_stand_row_by_row():
    images = np.stack([np.full((3, 4, 3), i, dtype=np.uint8) for i in range(5)])
    page = make_grid(images, 2, gap=1, background=(9, 9, 9))
    assert page.shape == (3 * 3 + 2, 2 * 4 + 1, 3)
    assert (page[:3, :4] == 0).all()
    assert (page[4:7, 5:] == 3).all()
    assert (page[8:, :4] == 4).all()
    assert (page[3] == 9).all()
    assert (page[8:, 5:] == 9).all()


def test_one_image_is_its_own_sheet():
    image = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    assert np.array_equal(make_grid(image), image[0])


@pytest.mark.parametrize(
    ("count", "size", "columns"), [(16, (8, 8), 4), (8, (8, 8), 3), (4, (80, 8), 1), (2, (8, 80), 2)]
)
def test_sheets_are_about_square(count: int, size: tuple[int, int], columns: int):
    assert grid_layout(count, *size).columns == columns
