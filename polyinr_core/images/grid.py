"""Image grids: images of one size side by side, their captions, frames, and matrix plots."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from polyinr_core.errors import PolyinrError, RequestError

Pixels = NDArray[np.unsignedinteger[Any]]

GAP = 2  # pixels between images
BACKGROUND = (255, 255, 255)
YELLOW = (255, 221, 0)
FONT_SHARE = 0.7  # font size per height of a caption
LETTERS = 8  # of full size that should fit into a caption side by side, if that leaves them readable
MIN_FONT_SIZE = 9  # pixels
MARGIN = 2  # pixels at either end of a caption
ELLIPSIS = "…"
COLORMAPS = ("inferno", "viridis", "plasma", "cividis", "gray")  # of matplotlib; lightness rises with the value
CELL = 28  # pixels of a matrix plot
NAME_WIDTH = 60
LINE = 18


@dataclass(frozen=True)
class GridLayout:
    """The places of `count` images of width x height in a grid, row by row, `gap` pixels apart.

    `left` and `top` are margins for captions.
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
        """Width and height of the grid."""
        width = self.left + _extent(self.columns, self.width, self.gap)
        return width, self.top + _extent(self.rows, self.height, self.gap)

    def place(self, index: int) -> tuple[slice, slice]:
        """Return the pixel rows and columns that image `index` covers."""
        row, column = divmod(index, self.columns)
        top, left = self.top + row * (self.height + self.gap), self.left + column * (self.width + self.gap)
        return slice(top, top + self.height), slice(left, left + self.width)


def grid_layout(
    count: int,
    width: int,
    height: int,
    *,
    columns: int | None = None,
    gap: int = GAP,
    left: int = 0,
    top: int = 0,
) -> GridLayout:
    """Lay out images in `columns`, by default as a grid that is about square."""
    if columns is None:
        columns = math.ceil(math.sqrt(count * height / width))
    return GridLayout(count, width, height, max(1, min(count, columns)), gap if count > 1 else 0, left, top)


def blank(size: tuple[int, int], *, background: tuple[int, int, int] = BACKGROUND, bits: int = 8) -> Pixels:
    """Return a background image [H, W, 3] of size (width, height), uint8 or uint16."""
    pixels = np.empty((size[1], size[0], 3), dtype=f"uint{bits}")
    pixels[:] = np.array(background) * ((2**bits - 1) // 255)
    return pixels


def make_grid(
    images: Pixels,
    columns: int | None = None,
    *,
    gap: int = GAP,
    background: tuple[int, int, int] = BACKGROUND,
) -> Pixels:
    """Arrange images [N, H, W, 3] in one image [H', W', 3]."""
    count, height, width, _ = images.shape
    plan = grid_layout(count, width, height, columns=columns, gap=gap)
    pixels = blank(plan.size, background=background)
    for index, image in enumerate(images):
        pixels[plan.place(index)] = image
    return pixels


def _extent(count: int, side: int, gap: int) -> int:
    return count * side + (count - 1) * gap


def caption(text: str, *, width: int, height: int, bits: int = 8) -> NDArray[np.unsignedinteger[Any]]:
    """Return a caption [height, width, 3], uint8 or uint16: one line, black on white, centered, shortened to fit.

    The font is as large as fits. Pillow's default font has only ASCII: accents are dropped, other letters become
    question marks.
    """
    image = Image.new("L", (width, height), 255)
    size = max(min(FONT_SHARE * height, width / LETTERS), min(FONT_SHARE * height, MIN_FONT_SIZE))
    font = _font(max(1, round(size)))
    line = _shortened(_plain(text), font, width - 2 * MARGIN)
    ImageDraw.Draw(image).text((width / 2, height / 2), line, fill=0, font=font, anchor="mm")
    pixels = np.asarray(image)[..., None].repeat(3, axis=2)
    return pixels if bits == 8 else pixels.astype(np.uint16) * 257


def draw_frame(
    pixels: NDArray[np.unsignedinteger[Any]],
    box: tuple[float, float, float, float],
    color: tuple[int, int, int] = YELLOW,
    *,
    thickness: int = 1,
) -> None:
    """Draw a frame around box (left, top, right, bottom; fractional pixels) into pixels [H, W, 3], in place.

    `color` is 8-bit, `pixels` may be uint16. The inside of the box is not covered; the frame is clipped to the image.
    """
    left, top, right, bottom = (math.floor(edge + 0.5) for edge in box)
    ink = np.asarray(color, dtype=pixels.dtype) * pixels.dtype.type(1 if pixels.dtype == np.uint8 else 257)
    around = slice(max(0, top - thickness), max(0, bottom + thickness))
    across = slice(max(0, left - thickness), max(0, right + thickness))
    for rows in (slice(around.start, max(0, top)), slice(max(0, bottom), around.stop)):
        pixels[rows, across] = ink
    for columns in (slice(across.start, max(0, left)), slice(max(0, right), across.stop)):
        pixels[around, columns] = ink


@lru_cache(maxsize=16)
def _font(size: int) -> Any:
    """Return Pillow's default font at a size in pixels."""
    return ImageFont.load_default(size)


def _plain(text: str) -> str:
    """Return the text on one line, in letters that the font has."""
    letters = unicodedata.normalize("NFKD", " ".join(text.split()))
    return "".join(letter if letter.isascii() else "?" for letter in letters if not unicodedata.combining(letter))


def _shortened(text: str, font: Any, width: int) -> str:
    """Return the text, shortened with an ellipsis if it is too wide."""
    if font.getlength(text) <= width:
        return text
    for end in range(len(text) - 1, -1, -1):
        cut = text[:end].rstrip() + ELLIPSIS
        if font.getlength(cut) <= width:
            return cut
    return ""


def apply_colormap(values: NDArray[np.floating[Any]], name: str = "inferno") -> NDArray[np.uint8]:
    """Return the colors [..., 3] of values [...], clamped to 0-1, by a colormap of matplotlib.

    Raises RequestError for a name that is not in COLORMAPS, PolyinrError for NaN.
    """
    if name not in COLORMAPS:
        raise RequestError(f"colormap {name!r} is unknown; use {', '.join(COLORMAPS)}")
    if np.isnan(values).any():
        raise PolyinrError("NaN has no color")
    from matplotlib import colormaps  # a tenth of a second

    indices = np.rint(np.clip(values, 0, 1) * 255).astype(np.intp)
    return np.asarray(colormaps[name](indices, bytes=True))[..., :3]


def plot_matrix(
    values: NDArray[np.floating[Any]],
    *,
    title: str,
    row_names: Sequence[str],
    column_names: Sequence[str],
    row_ends: Sequence[str],
    colormap: str = "inferno",
) -> NDArray[np.uint8]:
    """Plot a matrix [R, C] of values in 0-1 as colored cells, an image [H, W, 3].

    The title and `column_names` are above the cells, `row_names` left and `row_ends` right of the rows. Raises
    RequestError for an unknown colormap, PolyinrError for NaN.
    """
    rows, columns = values.shape
    top, left = 2 * LINE, NAME_WIDTH
    right, bottom = left + columns * CELL, top + rows * CELL
    pixels = blank((right + NAME_WIDTH, bottom))
    cells = apply_colormap(values, colormap).repeat(CELL, axis=0).repeat(CELL, axis=1)
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
