"""Decode any image file to 8-bit RGB in sRGB, upright, on a background; crop and resize it."""

import io
import re
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from polyinr_core.errors import DatasetError, ImageError, RequestError

from .color import cicp_profile, png_profile, to_8_bit, to_srgb

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
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PNG_FACTS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"tRNS")
ORIENTATION = 0x0112
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # the types of EXIF entries that hold whole numbers
AVIF_EXIF = re.compile(rb"(infe\x02.{7})Exif", re.DOTALL)
AVIF_CICP = re.compile(rb"colrnclx(....)", re.DOTALL)
AVIF_HEAD_BYTES = 2**16
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


class Stripped(NamedTuple):
    """An image file without the metadata that its pixels do not depend on, and the metadata that they do depend on.

    Texts, dates, thumbnails and later frames are often odd: no reason to refuse an image. So the color profile, the
    orientation (EXIF's number, 1 upright) and `chunks`, a PNG's ancillary chunks that count, are read tolerantly.
    """

    data: bytes
    format: str = ""
    profile: bytes | None = None
    orientation: int = 1
    chunks: Mapping[bytes, bytes] = {}


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

            return finish(*read_tiff(data, max_pixels=MAX_PIXELS), background)
        return finish(*read_stripped(strip(data)), background)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"declares more than {MAX_PIXELS} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError("is not an image of a known format") from error
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise ImageError(f"cannot be decoded ({one_line(error)})") from error


def read_stripped(file: Stripped) -> Decoded:
    """Read the first frame of a stripped file. Raises ImageError, or nearly anything for a damaged file."""
    head = file.data[:26]
    if file.format == "PNG" and head[12:16] == b"IHDR" and len(head) == 26:
        image, alpha = read_png(file.data, depth=head[24], color_type=head[25], transparent=file.chunks.get(b"tRNS"))
        return image, alpha, file.profile, file.orientation
    image = open_image(file.data, file.format)
    profile = file.profile or image.info.get("icc_profile")
    exif = image.info.get("exif") if not file.format or file.format == "AVIF" else None
    orientation = exif_orientation(exif) if isinstance(exif, bytes) else file.orientation
    return *split_alpha(image), profile, orientation


def open_image(data: bytes, format: str = "") -> Image.Image:
    """Open and load an image with Pillow. Raises ImageError if it is too large."""
    image = Image.open(io.BytesIO(data), formats=(format,) if format else FORMATS)
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
        image = open_image(data, "PNG")
        if is_opaque:
            return split_alpha(image)
        values = np.asarray(image)
        image, _ = split_alpha(image)
    alpha = None
    if depth == 16:
        small = to_8_bit(values)
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
        return np.asarray(open_image(data, "PNG")).copy().view(">u2").astype(np.uint16)
    high = open_image(data, "PNG")
    with Image.open(io.BytesIO(data), formats=("PNG",)) as low:
        low.tile = [tile._replace(args=f"{low.mode};16L") for tile in low.tile]
        low.load()
        return np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Convert a loaded image of any mode to L, RGB, CMYK or LAB, and its alpha to L or None."""
    if image.mode == "F" or image.mode.startswith("I"):
        return gray_to_8_bit(image), None
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


def gray_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit or floating-point gray to 8 bits. Raises ImageError."""
    values = np.asarray(image)
    top = 1 if image.mode == "F" else 65535
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= top):
        raise ImageError(f"has gray values outside 0-{top}")
    return Image.fromarray(to_8_bit(values) if top > 1 else np.rint(values * 255).astype(np.uint8))


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


def decode_square(path: Path, name: str, data: bytes, *, side: int | None) -> NDArray[np.uint8]:
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


def strip(data: bytes) -> Stripped:
    """Remove the metadata of a PNG, JPEG, WebP or AVIF that its pixels do not depend on. Raises ImageError for HDR."""
    if data.startswith(PNG_HEAD):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[4:12] in (b"ftypavif", b"ftypavis", b"ftypmif1", b"ftypmsf1"):
        return _avif(data)
    return Stripped(data)


def _png(data: bytes) -> Stripped:
    """Keep the critical chunks, and tRNS of a palette. An ancillary chunk with a wrong checksum is ignored."""
    kept = [(0, len(PNG_HEAD))]
    chunks: dict[bytes, bytes] = {}
    at = len(PNG_HEAD)
    has_palette = has_pixels = False
    while at + 8 <= len(data):
        length, chunk_type = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        keep = chunk_type in PNG_CRITICAL
        if not (keep or has_pixels or chunk_type[0] & 32):
            raise ImageError(f"cannot be decoded (a PNG with an unknown critical chunk, {chunk_type!r})")
        has_pixels |= chunk_type == b"IDAT"
        has_palette |= chunk_type == b"PLTE" and data[25:26] == b"\3"
        is_late = has_pixels and chunk_type != b"eXIf"  # the only one that may follow
        if chunk_type in PNG_FACTS and not is_late and chunk_type not in chunks and end <= len(data):
            body = data[at + 8 : end - 4]
            if zlib.crc32(body, zlib.crc32(chunk_type)) == int.from_bytes(data[end - 4 : end]):
                chunks[chunk_type] = body
                keep = has_palette and chunk_type == b"tRNS"
        if keep and kept[-1][1] == at:
            kept[-1] = (kept[-1][0], end)
        elif keep:
            kept.append((at, end))
        if chunk_type == b"IEND":
            break
        at = end
    if len(kept) > 1 or kept[0][1] < at:
        data = b"".join([data[start:end] for start, end in kept])
    if not chunks:
        return Stripped(data, "PNG")
    return Stripped(data, "PNG", png_profile(chunks), exif_orientation(chunks.get(b"eXIf", b"")), chunks)


def _jpeg(data: bytes) -> Stripped:
    """Drop all application and comment segments but JFIF's and Adobe's, which say what the channels are."""
    kept = [(0, 2)]
    exif = b""
    profile: dict[int, bytes] = {}
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # filling
            at += 1
            continue
        if marker in (0, 1) or 0xD0 <= marker <= 0xD7:  # without a length
            at += 2
            continue
        if marker in (0xD9, 0xDA):  # the end; a scan
            break
        end = at + 2 + max(2, data[at + 2] << 8 | data[at + 3])
        keep = True
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            body = data[at + 4 : end]
            keep = (marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) >= 14) or (
                marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12
            )
            if marker == 0xE1 and body[:5] == b"Exif\0" and not exif:
                exif = body[6:]
            elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0" and len(body) > 14:
                profile.setdefault(body[12], body[14:])
        if keep and kept[-1][1] == at:
            kept[-1] = (kept[-1][0], end)
        elif keep:
            kept.append((at, end))
        at = end
    kept.append((at, len(data)))
    if len(kept) > 2 or kept[0][1] != at:
        data = b"".join([data[start:end] for start, end in kept])
    icc = b"".join(profile[number] for number in sorted(profile))
    return Stripped(data, "JPEG", icc or None, exif_orientation(exif))


def _webp(data: bytes) -> Stripped:
    """Keep the first frame: of an animation ANIM and one ANMF."""
    kept: list[bytes] = []
    profile, exif = None, b""
    at, is_animated = 12, False
    while at + 8 <= len(data):
        chunk_type, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length
        if chunk_type == b"VP8X" and length >= 10:
            flags = data[at + 8] & 0x12  # animated, alpha: what else it announces is dropped
            kept.append(data[at : at + 8] + bytes([flags]) + data[at + 9 : end + length % 2])
        elif chunk_type in (b"ANIM", b"ALPH", b"VP8 ", b"VP8L") or (chunk_type == b"ANMF" and not is_animated):
            kept.append(data[at : end + length % 2])
            is_animated |= chunk_type == b"ANMF"
        elif chunk_type == b"ICCP" and profile is None and end <= len(data):
            profile = data[at + 8 : end]
        elif chunk_type == b"EXIF" and not exif and end <= len(data):
            exif = data[at + 8 : end]
        at = end + length % 2
    body = b"".join(kept)
    # the length is that of the whole body, so a file that is cut off still reads as cut off
    whole = b"RIFF" + struct.pack("<I", 4 + len(body) + len(body) % 2) + b"WEBP" + body
    return Stripped(whole, "WEBP", profile, exif_orientation(exif))


def _avif(data: bytes) -> Stripped:
    """Hide EXIF, as an AVIF is oriented by transform boxes of its own, and read the color code points."""
    head = data[:AVIF_HEAD_BYTES]
    found = AVIF_CICP.search(head)
    profile = cicp_profile(*struct.unpack(">HH", found[1])) if found and b"colrprof" not in head else None
    return Stripped(AVIF_EXIF.sub(rb"\1skip", head) + data[AVIF_HEAD_BYTES:], "AVIF", profile)


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block, 1-8; 1, upright, where there is none that can be read."""
    if exif[:4] == b"Exif":
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    start = struct.unpack_from(f"{order}I", exif, 4)[0]
    if start + 2 > len(exif):
        return 1
    count = struct.unpack_from(f"{order}H", exif, start)[0]
    for at in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, type_code, length = struct.unpack_from(f"{order}HHI", exif, at)
        if tag == ORIENTATION:
            if type_code not in INTEGERS or length < 1:
                return 1
            value = struct.unpack_from(f"{order}{INTEGERS[type_code]}", exif, at + 8)[0]
            return value if 1 <= value <= 8 else 1
    return 1
