"""Contact sheets: several images of one size side by side."""

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

GAP = 2
BACKGROUND = (255, 255, 255)


@dataclass(frozen=True)
class Layout:
    """Where `count` images of width x height stand on their sheet, row by row, `gap` pixels apart.

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
        """Return the rows and columns of the sheet that image `index` covers."""
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
    """Lay out images in the given columns, by default in about a square, with margins."""
    if columns is None:
        columns = math.ceil(math.sqrt(count * height / width))
    return Layout(count, width, height, max(1, min(count, columns)), gap if count > 1 else 0, left, top)


def blank(size: tuple[int, int], *, background: tuple[int, int, int] = BACKGROUND, bits: int = 8) -> Pixels:
    """Return an empty image [H, W, 3] of the size (width, height), in 8 or 16 bits a color."""
    pixels = np.empty((size[1], size[0], 3), dtype=f"uint{bits}")
    pixels[:] = np.array(background) * ((2**bits - 1) // 255)
    return pixels


def sheet(
    images: Pixels,
    columns: int | None = None,
    *,
    gap: int = GAP,
    background: tuple[int, int, int] = BACKGROUND,
) -> Pixels:
    """Set images [N, H, W, 3] on one sheet [H', W', 3]."""
    count, height, width, _ = images.shape
    plan = layout(count, width, height, columns=columns, gap=gap)
    pixels = blank(plan.size, background=background)
    for index, image in enumerate(images):
        pixels[plan.place(index)] = image
    return pixels


def _extent(count: int, side: int, gap: int) -> int:
    return count * side + (count - 1) * gap


YELLOW = (255, 221, 0)
HEIGHT_SHARE = 0.7  # of the label's height, the letters' size
LETTERS = 8  # of full size that a label should hold side by side, if that leaves them readable
READABLE = 9  # pixels
MARGIN = 2  # pixels left free at either end
ELLIPSIS = "…"


def caption(text: str, *, width: int, height: int, bits: int = 8) -> NDArray[np.unsignedinteger[Any]]:
    """Return a label [height, width, 3] in 8 or 16 bits: a line, black on white, centerd, cut short if too long.

    The letters are as large as the label lets them. Pillow's own typeface knows ASCII: accents are dropped,
    other letters are question marks.
    """
    image = Image.new("L", (width, height), 255)
    size = max(min(HEIGHT_SHARE * height, width / LETTERS), min(HEIGHT_SHARE * height, READABLE))
    font = _font(max(1, round(size)))
    line = _shortened(_plain(text), font, width - 2 * MARGIN)
    ImageDraw.Draw(image).text((width / 2, height / 2), line, fill=0, font=font, anchor="mm")
    pixels = np.asarray(image)[..., None].repeat(3, axis=2)
    return pixels if bits == 8 else pixels.astype(np.uint16) * 257


def framed(
    pixels: NDArray[np.unsignedinteger[Any]],
    box: tuple[float, float, float, float],
    color: tuple[int, int, int] = YELLOW,
    *,
    thickness: int = 1,
) -> None:
    """Draw a frame just around box (left, top, right, bottom; pixels, fractions allowed) into pixels [H, W, 3].

    In place, in 8 or 16 bits; the color is given in 8. Nothing inside the box is covered, and what lies outside
    the image is left out.
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
    """Return Pillow's own typeface at a size in pixels."""
    return ImageFont.load_default(size)


def _plain(text: str) -> str:
    """Return the text on one line, in letters that the typeface has."""
    letters = unicodedata.normalize("NFKD", " ".join(text.split()))
    return "".join(letter if letter.isascii() else "?" for letter in letters if not unicodedata.combining(letter))


def _shortened(text: str, font: Any, width: int) -> str:
    """Return the text, or as much of its beginning as fits with an ellipsis, or nothing."""
    if font.getlength(text) <= width:
        return text
    for end in range(len(text) - 1, -1, -1):
        cut = text[:end].rstrip() + ELLIPSIS
        if font.getlength(cut) <= width:
            return cut
    return ""


NAMES = ("fire", "bmy", "bgy", "kbc", "gray")
"""Linear maps of colorcet, dark to light (Peter Kovesi, "Good Color Maps", 2015)."""


def color(values: NDArray[np.floating[Any]], name: str = "fire") -> NDArray[np.uint8]:
    """Return the colors [..., 3] of values [...], clamped to 0-1.

    Raises RequestError for an unknown name, PolyinrError for a value that is no number.
    """
    if name not in NAMES:
        raise RequestError(f"color map {name!r} is not known; use {', '.join(NAMES)}")
    if np.isnan(values).any():
        raise PolyinrError("values that are no numbers have no color")
    table = _table(name)
    return table[np.rint(np.clip(values, 0, 1) * (len(table) - 1)).astype(np.intp)]


@lru_cache(maxsize=len(NAMES))
def _table(name: str) -> NDArray[np.uint8]:
    """Return the map's 256 colors [256, 3]."""
    import colorcet  # a tenth of a second

    return np.array([list(bytes.fromhex(text.removeprefix("#"))) for text in colorcet.palette[name]], dtype=np.uint8)


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
    colors: str = "fire",
) -> NDArray[np.uint8]:
    """Draw values [R, C] between 0 and 1 as colored cells: [H, W, 3], as large as R and C make it.

    The title stands above, names above the columns and left of the rows, `row_ends` right of them. Raises
    RequestError for an unknown color map, PolyinrError for a value that is no number.
    """
    rows, columns = values.shape
    top, left = 2 * LINE, NAME_WIDTH
    right, bottom = left + columns * CELL, top + rows * CELL
    pixels = blank((right + NAME_WIDTH, bottom))
    cells = color(values, colors).repeat(CELL, axis=0).repeat(CELL, axis=1)
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
