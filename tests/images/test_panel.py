"""Tables of numbers as images."""

import numpy as np
import pytest

from polyinr_core.errors import PolyinrError, RequestError
from polyinr_core.images.grid import CELL, LINE, NAME_WIDTH, apply_colormap, plot_matrix

NAMES = {"title": "shares", "row_names": ["a", "b"], "column_names": ["0", "1", "2"], "row_ends": ["1.5", ""]}
VALUES = np.array([[0.0, 0.5, 1.0], [0.25, 0.25, 0.75]])


def test_cells_have_their_values_colors():
    pixels = plot_matrix(VALUES, **NAMES, colormap="viridis")
    assert (pixels.shape, pixels.dtype) == ((2 * LINE + 2 * CELL, 2 * NAME_WIDTH + 3 * CELL, 3), np.uint8)
    for row in range(2):
        for column in range(3):
            top, left = 2 * LINE + row * CELL, NAME_WIDTH + column * CELL
            inside = pixels[top : top + CELL - 1, left : left + CELL - 1]
            assert (inside == apply_colormap(VALUES[row, column], "viridis")).all()


def test_words_stand_at_the_edges():
    pixels = plot_matrix(VALUES, **NAMES)
    black = (pixels < 128).all(axis=-1)
    assert black[:LINE].any()  # the title
    assert black[LINE : 2 * LINE, NAME_WIDTH : NAME_WIDTH + CELL].any()
    assert black[2 * LINE :, :NAME_WIDTH].any()
    ends = black[2 * LINE :, -NAME_WIDTH:]
    assert ends[:CELL].any()
    assert not ends[CELL:].any()  # the second has no words


def test_what_has_no_color():
    with pytest.raises(RequestError, match="colormap 'x'"):
        plot_matrix(VALUES, **NAMES, colormap="x")
    with pytest.raises(PolyinrError, match="NaN has no color"):
        plot_matrix(VALUES * np.nan, **NAMES)
