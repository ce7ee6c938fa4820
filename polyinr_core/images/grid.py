"""Pixels [H, W, 3] in memory: quantized colors, grids of images, their captions, frames, and color maps."""

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from polyinr_core.errors import PolyinrError, RequestError

if TYPE_CHECKING:  # the captions and color maps need no torch
    from torch import Tensor

Pixels = NDArray[np.unsignedinteger[Any]]

GAP = 2  # pixels between images
BACKGROUND = (255, 255, 255)
YELLOW = (255, 221, 0)
FONT_SHARE = 0.7  # font size per height of a caption
LETTERS = 8  # of full size that should fit into a caption side by side, if that leaves them readable
MIN_FONT_SIZE = 9  # pixels
MARGIN = 2  # pixels at either end of a caption
ELLIPSIS = "…"
load_font = lru_cache(maxsize=16)(ImageFont.load_default)
COLORMAPS = ("inferno", "viridis", "plasma", "cividis", "gray")  # of matplotlib; lightness rises with the value


def to_uint8(x: "Tensor") -> Pixels:
    """Quantize colors [..., 3] to 8 bits: (x + 1) 127.5, clamped to 0-255, then truncated, not rounded.

    As the release's script writes samples. Its metrics round (`quantize`), which is half a gray level more; see
    docs/method.md, "Where paper and release differ".
    """
    x = x if x.element_size() == 8 else x.float()
    return ((x + 1.0) * 127.5).clamp_(0.0, 255.0).byte().cpu().numpy()


def to_uint16(x: "Tensor") -> Pixels:
    """Quantize colors [..., 3] to 16 bits by the same rule: (x + 1) 32767.5, clamped, truncated."""
    x = x if x.element_size() == 8 else x.float()
    return ((x + 1.0) * 32767.5).clamp_(0.0, 65535.0).int().cpu().numpy().astype(np.uint16)


def quantize(x: "Tensor") -> "Tensor":
    """Round colors in [-1, 1] to uint8 as the release's metrics do: x 127.5 + 128, clamped, truncated.

    That is (x + 1) 127.5 rounded, half a gray level above `to_uint8`, and the exact inverse for real images.
    """
    return (x * 127.5 + 128).clamp_(0, 255).byte()


def fill_rows(target: Pixels, bands: Iterable["Tensor"], *, progress: Callable[[int], None] | None = None) -> None:
    """Quantize bands [rows, W, 3] into `target` [H, W, 3], uint8 or uint16.

    `progress` is called with the number of rows of each band. Raises PolyinrError for NaN or Inf.
    """
    quantize_band = to_uint8 if target.dtype == np.uint8 else to_uint16
    top = 0
    for band in check_finite(bands):
        rows = len(band)
        target[top : top + rows] = quantize_band(band)
        top += rows
        if progress is not None:
            progress(rows)


def check_finite(bands: Iterable["Tensor"]) -> Iterator["Tensor"]:
    """Yield bands of colors; raise PolyinrError at the first NaN or Inf."""
    for band in bands:
        if not bool(band.isfinite().all()):
            raise PolyinrError(
                "the model produced NaN or Inf in this window; use a smaller window, a psi closer to 1, "
                "or --precision float64"
            )
        yield band


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
    count: int, width: int, height: int, *, columns: int | None = None, gap: int = GAP, left: int = 0, top: int = 0
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
    images: Pixels, columns: int | None = None, *, gap: int = GAP, background: tuple[int, int, int] = BACKGROUND
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


def caption(text: str, *, width: int, height: int, bits: int = 8) -> Pixels:
    """Return a caption [height, width, 3], uint8 or uint16: one line, black on white, centered, shortened to fit.

    The font is as large as fits. Pillow's default font has only ASCII: accents are dropped, other letters become
    question marks.
    """
    image = Image.new("L", (width, height), 255)
    size = max(min(FONT_SHARE * height, width / LETTERS), min(FONT_SHARE * height, MIN_FONT_SIZE))
    font: Any = load_font(max(1, round(size)))
    line = _shortened(_plain(text), font, width - 2 * MARGIN)
    ImageDraw.Draw(image).text((width / 2, height / 2), line, fill=0, font=font, anchor="mm")
    pixels = np.asarray(image)[..., None].repeat(3, axis=2)
    return pixels if bits == 8 else pixels.astype(np.uint16) * 257


def draw_frame(
    pixels: Pixels, box: tuple[float, float, float, float], color: tuple[int, int, int] = YELLOW, *, thickness: int = 1
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
