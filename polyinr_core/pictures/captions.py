"""Words and frames on pictures: labels of a sheet's rows and columns, and the border of a window."""

import math
import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

YELLOW = (255, 221, 0)
HEIGHT_SHARE = 0.7  # of the label's height, the letters' size
LETTERS = 8  # of full size that a label should hold side by side, if that leaves them readable
READABLE = 9  # pixels
MARGIN = 2  # pixels left free at either end
ELLIPSIS = "…"


def caption(text: str, *, width: int, height: int, bits: int = 8) -> NDArray[np.unsignedinteger[Any]]:
    """Return a label [height, width, 3] in 8 or 16 bits: a line, black on white, centred, cut short if too long.

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
    colour: tuple[int, int, int] = YELLOW,
    *,
    thickness: int = 1,
) -> None:
    """Draw a frame just around box (left, top, right, bottom; pixels, fractions allowed) into pixels [H, W, 3].

    In place, in 8 or 16 bits; the colour is given in 8. Nothing inside the box is covered, and what lies outside
    the picture is left out.
    """
    left, top, right, bottom = (math.floor(edge + 0.5) for edge in box)
    ink = np.asarray(colour, dtype=pixels.dtype) * pixels.dtype.type(1 if pixels.dtype == np.uint8 else 257)
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
