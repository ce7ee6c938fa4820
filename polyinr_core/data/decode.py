"""Decode any image file to 8-bit RGB in sRGB, upright, on a background; crop and resize it."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from polyinr_core.errors import DatasetError, ImageError, RequestError

from .color import is_8_bit, to_srgb
from .stripping import Stripped, exif_orientation, stripped

Color = tuple[int, int, int]
Crop = Literal["center", "pad", "none"]
Resize = Literal["lanczos", "box", "bicubic", "bilinear"]

WHITE: Color = (255, 255, 255)
MAX_PIXELS = 2**27  # 134 million: more than cameras have, and 400 MB once decoded
MAX_IMAGE_BYTES = 2**28
IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".gif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".ico", ".qoi"),
)
# an allow-list: Pillow's EPS reader, for one, would run another program on the file
PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "PPM", "TGA", "JPEG2000", "ICO", "QOI")
Image.init()
FORMATS = tuple(name for name in PILLOW_FORMATS if name in Image.OPEN)  # a Pillow may be built without some
FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
Decoded = tuple[Image.Image, Image.Image | None, bytes | None, int]  # colors, alpha, profile, orientation
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_GRAY, PNG_RGB, PNG_PALETTE, PNG_GRAY_ALPHA, PNG_RGBA = 0, 2, 3, 4, 6
PNG_CHANNELS = {PNG_GRAY: 1, PNG_RGB: 3}  # of a transparent color
TURNS = {  # EXIF orientation: the transposition that makes an image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def parse_color(text: str) -> Color:
    """Parse a color name, `#rgb`, `#rrggbb` or `rgb(r, g, b)` to RGB. Raises RequestError."""
    color: tuple[int, ...] = ()
    with suppress(ValueError):
        color = ImageColor.getrgb(text)
    if len(color) != 3:
        raise RequestError(f"{text!r} is not an opaque color; give a name such as white, or #rrggbb")
    return color


def decode(data: bytes, *, background: Color = WHITE) -> Image.Image:
    """Decode the bytes of an image file to an RGB image, upright, in sRGB, on `background` where transparent.

    The first frame of an animation is decoded, whatever follows. Raises ImageError without a file name.
    """
    if not data:
        raise ImageError("is empty")
    try:
        if data[:4] in TIFF_HEADS:
            from .tiff import read_tiff

            tiff = read_tiff(data, max_pixels=MAX_PIXELS)
            return finish(tiff.image, tiff.alpha, tiff.profile, tiff.orientation, background)
        return finish(*read(stripped(data)), background)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"declares more than {MAX_PIXELS} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError("is not an image of a known format") from error
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise ImageError(f"cannot be decoded ({one_line(error)})") from error


def read(file: Stripped) -> Decoded:
    """Read the first frame of a stripped file. Raises ImageError, or nearly anything for a damaged file."""
    head = file.data[:26]
    if file.kind == "PNG" and head[12:16] == b"IHDR" and len(head) == 26:
        image, alpha = read_png(file.data, depth=head[24], color_type=head[25], transparent=file.chunks.get(b"tRNS"))
        return image, alpha, file.profile, file.orientation
    image = opened(file.data, file.kind)
    profile = file.profile or image.info.get("icc_profile")
    exif = image.info.get("exif") if not file.kind or file.kind == "AVIF" else None
    orientation = exif_orientation(exif) if isinstance(exif, bytes) else file.orientation
    return *channels(image), profile, orientation


def opened(data: bytes, kind: str = "") -> Image.Image:
    """Open and load an image with Pillow. Raises ImageError if it is too large."""
    image = Image.open(io.BytesIO(data), formats=(kind,) if kind else FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"declares {image.width}x{image.height} pixels, more than {MAX_PIXELS}")
    image.load()
    return image


def read_png(
    data: bytes, *, depth: int, color_type: int, transparent: bytes | None
) -> tuple[Image.Image, Image.Image | None]:
    """Read a PNG whose ancillary chunks are removed, except tRNS of a palette."""
    if color_type == PNG_PALETTE and data[37:41] != b"PLTE":  # after the header
        raise ImageError("cannot be decoded (a PNG without its palette)")
    is_opaque = transparent is None or len(transparent) != 2 * PNG_CHANNELS.get(color_type, 0)
    if depth == 16 and color_type in (PNG_RGB, PNG_GRAY_ALPHA, PNG_RGBA):
        values = read_deep_png(data, color_type)
    else:
        image = opened(data, "PNG")
        if is_opaque:
            return channels(image)
        values = np.asarray(image)
        image, _ = channels(image)
    alpha = None
    if depth == 16:
        small = is_8_bit(values)
        if color_type in (PNG_GRAY_ALPHA, PNG_RGBA):
            small, clear = small[..., :-1], small[..., -1]
            alpha = Image.fromarray(np.ascontiguousarray(clear))
        image = Image.fromarray(np.ascontiguousarray(small[..., 0] if color_type == PNG_GRAY_ALPHA else small))
    if not is_opaque:
        color = np.frombuffer(transparent or b"", ">u2") & (2**depth - 1)
        if 1 < depth < 8:
            color = color * (255 // (2**depth - 1))  # as Pillow scales them
        is_transparent = (values.reshape(*values.shape[:2], -1) == color).all(axis=-1)
        alpha = Image.fromarray(np.where(is_transparent, 0, 255).astype(np.uint8))
    return image, alpha


def read_deep_png(data: bytes, color_type: int) -> NDArray[np.uint16]:
    """Read the samples [H, W, C] of a 16-bit PNG with color or alpha.

    Pillow unpacks the high bytes only, or the low bytes if the byte order is changed to little-endian.
    """
    if color_type == PNG_GRAY_ALPHA:  # the same bytes as four channels of 8 bits
        header = data[12:24] + bytes([8, PNG_RGBA]) + data[26:29]
        data = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
        return np.asarray(opened(data, "PNG")).copy().view(">u2").astype(np.uint16)
    high = opened(data, "PNG")
    with Image.open(io.BytesIO(data), formats=("PNG",)) as low:
        low.tile = [tile._replace(args=f"{low.mode};16L") for tile in low.tile]
        low.load()
        return np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)


def channels(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Convert a loaded image of any mode to L, RGB, CMYK or LAB, and its alpha to L or None."""
    if image.mode == "F" or image.mode.startswith("I"):
        return deep_gray(image), None
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode.upper())
    if image.mode == "LA":
        return image.getchannel("L"), image.getchannel("A")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode == "1":
        image = image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK", "LAB") else image.convert("RGB"), alpha


def deep_gray(image: Image.Image) -> Image.Image:
    """Scale 16-bit or floating-point gray to 8 bits. Raises ImageError."""
    values = np.asarray(image)
    top = 1 if image.mode == "F" else 65535
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= top):
        raise ImageError(f"has gray values outside 0-{top}")
    return Image.fromarray(is_8_bit(values) if top > 1 else np.rint(values * 255).astype(np.uint8))


def frame_count(data: bytes) -> int:
    """Return the number of frames or pages of an image file; 1 if one is damaged, so they cannot be counted."""
    with suppress(Exception), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return int(getattr(image, "n_frames", 1))
    return 1


def finish(
    image: Image.Image, alpha: Image.Image | None, profile: bytes | None, orientation: int, background: Color
) -> Image.Image:
    """Convert an image to sRGB, on `background`, upright, without metadata."""
    image = to_srgb(image, profile)
    if alpha is not None and alpha.getextrema() != (255, 255):
        image = Image.composite(image, Image.new("RGB", image.size, background), alpha)
    image.info = {}  # or Pillow would write the old profile to the new file
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def fit(image: Image.Image, resolution: int, *, crop: Crop, resize: Resize, background: Color) -> Image.Image:
    """Crop and resize an RGB image to a square. Raises ImageError if it is too small, as nothing is enlarged.

    `crop`: "center" keeps the middle square, "pad" adds borders of `background`, "none" stretches.
    """
    width, height = image.size
    side = max(width, height) if crop == "pad" else min(width, height)
    if side < resolution:
        raise ImageError(f"is too small ({width}x{height}, {resolution} is needed)")
    if crop == "center":
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if crop != "pad" or width == height:
        return image.resize((resolution, resolution), FILTERS[resize])
    small = (max(1, round(width * resolution / side)), max(1, round(height * resolution / side)))
    padded = Image.new("RGB", (resolution, resolution), background)
    padded.paste(image.resize(small, FILTERS[resize]), ((resolution - small[0]) // 2, (resolution - small[1]) // 2))
    return padded


def one_line(error: Exception) -> str:
    """Return the message of an error on one line of at most 120 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:120]


def decoded(path: Path, name: str, data: bytes, *, side: int | None) -> NDArray[np.uint8]:
    """Decode an image of a dataset to uint8 [R, R, 3], R = `side` (None: any size). Raises DatasetError."""
    try:
        pixels = np.array(decode(data))  # a copy, writable
    except ImageError as error:
        raise DatasetError(path, f"the image {name!r} {error}") from error
    height, width = pixels.shape[:2]
    if not height == width == (side or width):
        expected = "square" if side is None else f"{side}x{side} as the first"
        raise DatasetError(path, f"the image {name!r} is {width}x{height}, not {expected}; use `polyinr prepare`")
    return pixels
