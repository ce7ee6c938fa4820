"""Tiles: which part of the plane each looks at, and the number format that can tell its pixels apart.

The plane's square WORLD is a picture of 2^level pixels a side, cut into tiles of SIDE pixels. Its pixels are
cells without overlap, each drawn at its middle. Up to LAST these middles are whole in float64, so tiles of a
level join as if they were drawn as one picture.
"""

from dataclasses import dataclass

import torch

from ..errors import RequestError
from ..model import Bounds, View

SIDE = 256  # pixels of a tile
LOW, EXTENT = -7.5, 16.0  # the world's lower end and its side: the trained square 0..1 is in its middle
FIRST = 8  # the level whose one tile shows the world
LAST = 50  # an eighth of a pixel is the last bit of a position in the world, also in a page's own arithmetic
SINGLE = 20  # the last level that float32 draws: there it tells 16 places apart in a pixel anywhere in the world
NARROW = 16  # pixels to one of the training's: those that bfloat16 may draw
FINENESS = 4  # points a side of pixels that are larger than those of the training


@dataclass(frozen=True, order=True)
class Tile:
    """A tile by its level, column and row, counted from the left and from the top. Raises RequestError."""

    level: int
    column: int
    row: int

    def __post_init__(self) -> None:
        if not FIRST <= self.level <= LAST:
            raise RequestError(f"level {self.level} is outside {FIRST}-{LAST}")
        last = tiles_across(self.level) - 1
        for name, index in (("column", self.column), ("row", self.row)):
            if not 0 <= index <= last:
                raise RequestError(f"{name} {index} is outside 0-{last} (level {self.level})")

    @property
    def bounds(self) -> Bounds:
        """The middles of the outermost pixels, x0, y0, x1, y1."""
        step = pitch(self.level)
        x, y = (LOW + (index * SIDE + 0.5) * step for index in (self.column, self.row))
        return x, y, x + (SIDE - 1) * step, y + (SIDE - 1) * step

    def view(self, resolution: int) -> View:
        """Return what the tile shows of a model trained at a resolution (0: unknown).

        Pixels larger than those of the training are the means of several points.
        """
        across = pitch(self.level) * resolution  # of the training's pixels
        fineness = 1 if across <= 1 else 2 if across <= 2 else FINENESS
        return View(SIDE, SIDE, self.bounds, fineness=fineness)


def pitch(level: int) -> float:
    """Return the side of a level's pixels in units of the plane."""
    return EXTENT / 2**level


def tiles_across(level: int) -> int:
    """Return how many tiles a level has, in a row and in a column."""
    return 2 ** (level - FIRST)


def format_of(level: int, *, resolution: int, coarsest: torch.dtype) -> torch.dtype:
    """Return the number format that a level is drawn in: the coarsest one in which its pixels differ.

    `coarsest` is bfloat16 where that is wanted, float32, or float64. What bfloat16 rounds off would show in
    pixels that are much smaller than those of the training at `resolution`.
    """
    if level > SINGLE or coarsest == torch.float64:
        return torch.float64
    if coarsest == torch.bfloat16 and pitch(level) * resolution * NARROW >= 1:
        return torch.bfloat16
    return torch.float32
