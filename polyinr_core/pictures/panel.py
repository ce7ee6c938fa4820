"""A table of numbers as a picture: coloured cells, with words at the edges."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .captions import caption
from .colour_map import colour
from .sheet import GAP, blank

CELL = 28  # pixels
NAME_WIDTH = 60
LINE = 18


def panel(
    values: NDArray[np.floating[Any]],
    *,
    title: str,
    row_names: Sequence[str],
    column_names: Sequence[str],
    row_ends: Sequence[str],
    colours: str = "fire",
) -> NDArray[np.uint8]:
    """Draw values [R, C] between 0 and 1 as coloured cells: [H, W, 3], as large as R and C make it.

    The title stands above, names above the columns and left of the rows, `row_ends` right of them. Raises
    RequestError for an unknown colour map, PolyinrError for a value that is no number.
    """
    rows, columns = values.shape
    top, left = 2 * LINE, NAME_WIDTH
    right, bottom = left + columns * CELL, top + rows * CELL
    pixels = blank((right + NAME_WIDTH, bottom))
    cells = colour(values, colours).repeat(CELL, axis=0).repeat(CELL, axis=1)
    for step in range(1, GAP // 2 + 1):  # thin lines between the cells
        cells[CELL - step :: CELL] = 255
        cells[:, CELL - step :: CELL] = 255
    pixels[top:bottom, left:right] = cells
    pixels[:LINE] = caption(title, width=pixels.shape[1], height=LINE)
    for index, name in enumerate(column_names):
        columns_of = slice(left + index * CELL, left + (index + 1) * CELL)
        pixels[LINE:top, columns_of] = caption(name, width=CELL, height=LINE)
    for names, place in ((row_names, slice(0, left)), (row_ends, slice(right, right + NAME_WIDTH))):
        for index, name in enumerate(names):
            rows_of = slice(top + index * CELL, top + (index + 1) * CELL)
            pixels[rows_of, place] = caption(name, width=NAME_WIDTH, height=CELL)
    return pixels.astype(np.uint8, copy=False)
