"""Contact sheets: several pictures of one size side by side."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.unsignedinteger[Any]]

GAP = 2
BACKGROUND = (255, 255, 255)


@dataclass(frozen=True)
class Layout:
    """Where `count` pictures of width x height stand on their sheet, row by row, `gap` pixels apart.

    `left` and `top` are margins, for words.
    """

    count: int
    width: int
    height: int
    columns: int
    gap: int = GAP
    left: int = 0
    top: int = 0

    @property
    def rows(self) -> int:
        return math.ceil(self.count / self.columns)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        width = self.left + _extent(self.columns, self.width, self.gap)
        return width, self.top + _extent(self.rows, self.height, self.gap)

    def place(self, index: int) -> tuple[slice, slice]:
        """Return the rows and columns of the sheet that picture `index` covers."""
        row, column = divmod(index, self.columns)
        top, left = self.top + row * (self.height + self.gap), self.left + column * (self.width + self.gap)
        return slice(top, top + self.height), slice(left, left + self.width)


def layout(
    count: int,
    width: int,
    height: int,
    *,
    columns: int | None = None,
    gap: int = GAP,
    left: int = 0,
    top: int = 0,
) -> Layout:
    """Lay out pictures in the given columns, by default in about a square, with margins."""
    if columns is None:
        columns = math.ceil(math.sqrt(count * height / width))
    return Layout(count, width, height, max(1, min(count, columns)), gap if count > 1 else 0, left, top)


def blank(size: tuple[int, int], *, background: tuple[int, int, int] = BACKGROUND, bits: int = 8) -> Pixels:
    """Return an empty picture [H, W, 3] of the size (width, height), in 8 or 16 bits a colour."""
    pixels = np.empty((size[1], size[0], 3), dtype=f"uint{bits}")
    pixels[:] = np.array(background) * ((2**bits - 1) // 255)
    return pixels


def sheet(
    pictures: Pixels,
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
