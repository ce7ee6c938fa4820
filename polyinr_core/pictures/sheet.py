"""Contact sheets: several pictures of one size side by side."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

GAP = 2
BACKGROUND = (255, 255, 255)


@dataclass(frozen=True)
class Layout:
    """Where `count` pictures of width x height stand on their sheet, row by row, `gap` pixels apart."""

    count: int
    width: int
    height: int
    columns: int
    gap: int = GAP

    @property
    def rows(self) -> int:
        return math.ceil(self.count / self.columns)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        return _extent(self.columns, self.width, self.gap), _extent(self.rows, self.height, self.gap)

    def place(self, index: int) -> tuple[slice, slice]:
        """Return the rows and columns of the sheet that picture `index` covers."""
        row, column = divmod(index, self.columns)
        top, left = row * (self.height + self.gap), column * (self.width + self.gap)
        return slice(top, top + self.height), slice(left, left + self.width)


def layout(count: int, width: int, height: int, *, columns: int | None = None, gap: int = GAP) -> Layout:
    """Lay out pictures in the given columns, by default in about a square."""
    if columns is None:
        columns = math.ceil(math.sqrt(count * height / width))
    return Layout(count, width, height, max(1, min(count, columns)), gap if count > 1 else 0)


def blank(size: tuple[int, int], *, background: tuple[int, int, int] = BACKGROUND) -> Pixels:
    """Return an empty picture [H, W, 3] of the size (width, height)."""
    pixels = np.empty((size[1], size[0], 3), dtype=np.uint8)
    pixels[:] = background
    return pixels


def sheet(
    pictures: NDArray[np.uint8],
    columns: int | None = None,
    *,
    gap: int = GAP,
    background: tuple[int, int, int] = BACKGROUND,
) -> Pixels:
    """Set pictures [N, H, W, 3] on one sheet [H', W', 3]."""
    count, height, width, _ = pictures.shape
    plan = layout(count, width, height, columns=columns, gap=gap)
    pixels = blank(plan.size, background=background)
    for index, picture in enumerate(pictures):
        pixels[plan.place(index)] = picture
    return pixels


def _extent(count: int, side: int, gap: int) -> int:
    return count * side + (count - 1) * gap
