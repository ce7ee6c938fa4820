"""The first image of a TIFF: any layout of samples, scaled to 8 bits a channel; others are refused in one line.

tifffile reads the tags. libtiff, through Pillow, unpacks strips and tiles, which it is given as plain bytes:
Pillow by itself misreads some layouts silently (separate planes of 16 bits) and truncates 16 bits to 8.
"""

import ctypes
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, _imaging

from polyinr_core.errors import ImageError

from .color import to_8_bit

UNCOMPRESSED, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
JPEG = 7
CCITT = (2, 3, 4)
# general compression, which knows nothing of images
STREAMS = (UNCOMPRESSED, PACKBITS, LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD)
PREDICTED = (LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD)  # with the others libtiff disregards a predictor
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
COLORS = {WHITE_IS_0: 1, BLACK_IS_0: 1, RGB: 3, PALETTE: 1, CMYK: 4, CIELAB: 3, ICCLAB: 3}  # channels without alpha
UNSPECIFIED, PREMULTIPLIED, STRAIGHT, COREL_DRAW = 0, 1, 2, 999  # what an extra channel is
UNSIGNED, SIGNED, FLOATING, UNDEFINED = 1, 2, 3, 4
BITS = {UNSIGNED: range(1, 17), FLOATING: (16, 32, 64)}
UNPACKED_AT_ONCE = 2**26  # bytes: below the size at which Pillow warns of a bomb
MAX_AT_ONCE = 2**27 + 2**25  # what Pillow opens
MAX_SAMPLE_BYTES = 2**31
# what libtiff's own readers of JPEG, fax and YCbCr need to know, with the type that a tag is written as
COPIED = dict.fromkeys((256, 257, 278, 292, 293, 322, 323), "I") | {347: "B", 529: "R", 532: "R"}
COPIED |= dict.fromkeys((258, 259, 266, 277, 284, 317, 338, 339, 530, 531), "H")
Tag = tuple[str, Sequence[int]]  # the letter of its type, its values
ByteOrder = Literal["<", ">"]
TYPES = {"B": 7, "H": 3, "I": 4, "R": 5}


def read_tiff(data: bytes, *, max_pixels: int) -> tuple[Image.Image, Image.Image | None, bytes | None, int]:
    """Read the first image of a TIFF as L, RGB, CMYK or LAB, its alpha as L, its color profile and EXIF's orientation.

    Raises ImageError, or anything for a broken file.
    """
    silence_libtiff()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        width, height = page.imagewidth, page.imagelength
        if width * height > max_pixels:
            raise ImageError(f"declares {width}x{height} pixels, more than {max_pixels}")
        if not width or not height or page.imagedepth != 1:
            raise ImageError("holds no flat image (a TIFF without width, height or of several depths)")
        if 262 not in page.tags:
            raise ImageError("does not say what its numbers mean (a TIFF without PhotometricInterpretation)")
        compression = int(page.compression)
        if compression in STREAMS and page.photometric != YCBCR:
            image, alpha = to_colors(read_samples(data, page, byteorder=file.byteorder), page)
        else:
            image, alpha = decode_by_pillow(data, page), None
        profile = page.tags.get(34675)
        icc = profile.value if profile is not None and isinstance(profile.value, bytes) else None
        orientation = (_whole_numbers(page, 274) or [1])[0]
        return image, alpha, icc, orientation if 1 <= orientation <= 8 else 1


@cache
def silence_libtiff() -> None:
    """Stop the libtiff that Pillow is linked to from writing to stderr; Pillow raises an error by itself."""
    with suppress(OSError, AttributeError):  # linked statically: its functions cannot be found
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.restype, handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            handler(None)


def read_samples(data: bytes, page: Any, *, byteorder: ByteOrder) -> NDArray:
    """Return the samples [H, W, S] of a page, in the file's own type (uint8, uint16, floating point).

    Raises ImageError for what is not known to be read right.
    """
    format, bits, channels = _sample_format(page), page.bitspersample, page.samplesperpixel
    width, height = page.imagewidth, page.imagelength
    if width * height * channels * max(8, bits) // 8 > MAX_SAMPLE_BYTES:
        raise ImageError(f"holds more than {MAX_SAMPLE_BYTES // 2**30} GiB of samples")
    planes, together = (channels, 1) if page.planarconfig == 2 else (1, channels)
    row_width, rows = (page.tilewidth, page.tilelength) if page.is_tiled else (width, min(page.rowsperstrip, height))
    if rows < 1 or row_width < 1 or (page.is_tiled and row_width * together * bits % 8):
        raise ImageError(f"is laid out in impossible strips or tiles ({row_width}x{rows})")
    across = -(-width // row_width)
    row_bytes = -(-row_width * together * bits // 8)
    segments = list(_segments(data, page))
    count = across * -(-height // rows)
    if len(segments) < planes * count:
        raise ImageError(f"lacks strips or tiles: {planes * count} are needed, {len(segments)} are there")
    samples = np.empty((height, width, channels), dtype=_dtype(format, bits))
    compression = int(page.compression)
    step = across * max(1, UNPACKED_AT_ONCE // (across * rows * row_bytes))  # whole rows of tiles
    for plane in range(planes):
        for first in range(0, count, step):
            top = first // across * rows
            part = segments[plane * count + first : plane * count + min(first + step, count)]
            packed = unpack(
                part,
                compression=compression,
                width=across * row_bytes,
                height=min(height - top, -(-len(part) // across) * rows),
                tile=(row_bytes, rows) if page.is_tiled else None,
                rows=rows,
                fill_order=page.fillorder,
            )
            values = _to_numbers(packed, bits=bits, format=format, byteorder=byteorder, predictor=page.predictor,
                              tiles=across, together=together)  # fmt: skip
            target = samples[top : top + len(values), :, plane : plane + together]
            values = values[:, : across * row_width * together]  # the remaining bits fill a row's last byte
            target[...] = values.reshape(len(values), -1, together)[:, :width]
    return samples


def _sample_format(page: Any) -> int:
    """Return the sample format of a page. Raises ImageError if its white is unknown, or its predictor."""
    tag = page.tags.get(339)
    found = tag.value if tag is not None else UNSIGNED
    found = set(found) if isinstance(found, tuple) else {found}
    format = found.pop()
    format = UNSIGNED if format == UNDEFINED else format
    bits = page.bitspersample
    if found or not isinstance(bits, int) or bits not in BITS.get(format, ()):
        names = {UNSIGNED: "whole", SIGNED: "signed", FLOATING: "floating-point"}
        raise ImageError(f"holds {names.get(format, 'unknown')} samples of {bits} bits, which have no certain white")
    if page.predictor != 1:
        known = {2: bits in (8, 16) and format == UNSIGNED, 3: format == FLOATING}
        if page.compression not in PREDICTED or not known.get(int(page.predictor), False):
            raise ImageError(
                f"has a predictor ({int(page.predictor)}) that does not go with its samples or compression"
            )
    return format


def _dtype(format: int, bits: int) -> np.dtype:
    return np.dtype(f"f{bits // 8}" if format == FLOATING else "u1" if bits <= 8 else "u2")


def _segments(data: bytes, page: Any) -> Iterator[bytes]:
    """Yield the packed strips or tiles of a page. Raises ImageError if one is not there."""
    offsets = _whole_numbers(page, 324) or _whole_numbers(page, 273)
    lengths = _whole_numbers(page, 325) or _whole_numbers(page, 279)
    if not lengths and page.compression == UNCOMPRESSED:
        lengths = [max(0, len(data) - offset) for offset in offsets]  # cut to what is needed by the caller
    if len(offsets) != len(lengths):
        raise ImageError("does not say where its strips or tiles are")
    for offset, length in zip(offsets, lengths, strict=True):
        if not offset or not length or offset + length > len(data):
            raise ImageError("is cut off: a strip or tile is not there")
        yield data[offset : offset + length]


def _whole_numbers(page: Any, code: int) -> list[int]:
    """Return the values of a tag, none where it is absent or holds something else."""
    tag = page.tags.get(code)
    value = () if tag is None else tag.value
    values = list(value) if isinstance(value, tuple | bytes) else [value]
    return [int(value) for value in values] if all(isinstance(value, int) for value in values) else []


def unpack(
    segments: Sequence[bytes],
    *,
    compression: int,
    width: int,
    height: int,
    tile: tuple[int, int] | None,
    rows: int,
    fill_order: int,
) -> NDArray[np.uint8]:
    """Unpack strips or tiles to bytes [height, width], by libtiff, which takes them for 8-bit gray."""
    if compression == UNCOMPRESSED and tile is None:
        short = [min(rows, height - i * rows) * width for i in range(len(segments))]
        if any(len(segment) < length for segment, length in zip(segments, short, strict=True)):
            raise ImageError("is cut off: a strip is too short")
        joined = b"".join(segment[:length] for segment, length in zip(segments, short, strict=True))
        plain = np.frombuffer(joined, np.uint8).reshape(height, width)
        return np.packbits(np.unpackbits(plain, axis=1, bitorder="little"), axis=1) if fill_order == 2 else plain
    if width * height > MAX_AT_ONCE:
        raise ImageError(f"holds a strip or row of tiles of more than {MAX_AT_ONCE // 2**20} MiB; save it in strips")
    tags: dict[int, Tag] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8]),
        259: ("H", [compression]),
        262: ("H", [BLACK_IS_0]),
        266: ("H", [fill_order]),
        277: ("H", [1]),
    }
    if tile is not None:
        tags |= {322: ("I", [tile[0]]), 323: ("I", [tile[1]])}
    else:
        tags[278] = ("I", [rows])
    with Image.open(io.BytesIO(tiff_file(tags, segments, is_tiled=tile is not None)), formats=("TIFF",)) as image:
        return np.asarray(image)


def tiff_file(tags: dict[int, Tag], segments: Sequence[bytes], *, is_tiled: bool) -> bytes:
    """Return a TIFF file of one image: its tags, by the letter of their type, and its strips or tiles."""
    count = len(segments)
    offsets, counts = (324, 325) if is_tiled else (273, 279)
    tags = {**tags, offsets: ("I", [0] * count), counts: ("I", [len(segment) for segment in segments])}
    at = 8 + 2 + 12 * len(tags) + 4
    entries, body = b"", b""
    sizes = {tag: len(_pack(letter, values)) for tag, (letter, values) in tags.items()}
    start = at + sum(size + size % 2 for size in sizes.values() if size > 4)
    places = np.cumsum([start, *(len(segment) for segment in segments)])[:count]
    tags[offsets] = ("I", places.tolist())
    for tag, (letter, values) in sorted(tags.items()):
        value = _pack(letter, values)
        entries += struct.pack("<HHI", tag, TYPES[letter], len(values) // (2 if letter == "R" else 1))
        if len(value) <= 4:
            entries += value.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", at + len(body))
            body += value + b"\0" * (len(value) % 2)
    return b"".join([struct.pack("<2sHIH", b"II", 42, 8, len(tags)), entries, b"\0\0\0\0", body, *segments])


def _pack(letter: str, values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}{'I' if letter == 'R' else letter}", *values)


def _to_numbers(
    packed: NDArray[np.uint8],
    *,
    bits: int,
    format: int,
    byteorder: ByteOrder,
    predictor: int,
    tiles: int,
    together: int,
) -> NDArray:
    """Convert rows of bytes to rows of numbers [H, N]; each of `tiles` side by side has its own prediction."""
    height = len(packed)
    if predictor == 3:  # bytes of all numbers, the highest first, then differences (Adobe's TIFF technical note 3)
        split = packed.reshape(height, tiles, -1, together).cumsum(axis=2, dtype=np.uint8)
        split = split.reshape(height, tiles, bits // 8, -1).swapaxes(2, 3)
        return np.ascontiguousarray(split).view(f">f{bits // 8}").reshape(height, -1)
    if bits in (8, 16, 32, 64):
        values = packed.view(_dtype(format, bits).newbyteorder(byteorder))
        if predictor == 2:
            values = values.reshape(height, tiles, -1, together).cumsum(axis=2, dtype=_dtype(format, bits))
        return values.reshape(height, -1)
    values = np.empty((height, packed.shape[1] * 8 // bits), dtype=_dtype(format, bits))
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint16)
    for row, line in zip(values, packed, strict=True):  # eight times the bytes: row by row
        row[:] = np.unpackbits(line)[: len(row) * bits].reshape(-1, bits) @ weights
    return values


def to_colors(samples: NDArray, page: Any) -> tuple[Image.Image, Image.Image | None]:
    """Return the image (L, RGB, CMYK, LAB) and the alpha of samples [H, W, S]. Raises ImageError."""
    photometric = int(page.photometric)
    if photometric not in COLORS:
        raise ImageError(f"holds colors of an unsupported kind (TIFF photometric interpretation {photometric})")
    channels = COLORS[photometric]
    extra = samples.shape[2] - channels
    if extra < 0:
        raise ImageError(f"holds {samples.shape[2]} channels where its colors need {channels}")
    meanings = [int(meaning) for meaning in page.extrasamples]
    meanings += [STRAIGHT if channels == 3 and extra == 1 else UNSPECIFIED] * (extra - len(meanings))
    alphas = [i for i, meaning in enumerate(meanings[:extra]) if meaning in (PREMULTIPLIED, STRAIGHT, COREL_DRAW)]
    if photometric in (WHITE_IS_0, BLACK_IS_0) and extra - len(alphas) > 1:
        raise ImageError(f"holds {samples.shape[2]} channels without saying which are its colors")
    ink_set = page.tags.get(332)
    if photometric == CMYK and ink_set is not None and ink_set.value != 1:
        raise ImageError("holds inks other than cyan, magenta, yellow and black")
    bits = page.bitspersample
    alpha = None
    if photometric == PALETTE:
        pixels = _palette_of(page)[samples[..., 0]]
    elif photometric in (CIELAB, ICCLAB):
        pixels = _lab(samples[..., :3], bits=bits, signed=photometric == CIELAB)
    else:
        pixels = _scale_to_8_bit(samples[..., :channels], bits)
        if photometric == WHITE_IS_0:
            pixels = 255 - pixels
    if alphas:
        which = alphas[0]
        alpha = _scale_to_8_bit(samples[..., channels + which], bits)
        if meanings[which] == PREMULTIPLIED and photometric in (BLACK_IS_0, RGB):
            pixels = _unmultiply(samples[..., :channels], samples[..., channels + which])
        elif meanings[which] == PREMULTIPLIED and alpha.min() < 255:
            raise ImageError("holds premultiplied alpha with colors other than gray or RGB")
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[pixels.shape[2]]
    if photometric in (CIELAB, ICCLAB):
        mode = "LAB"
    flat = pixels[..., 0] if mode == "L" else pixels
    image = Image.frombytes(mode, flat.shape[1::-1], np.ascontiguousarray(flat).tobytes())
    return image, None if alpha is None else Image.fromarray(np.ascontiguousarray(alpha))


def _scale_to_8_bit(values: NDArray, bits: int) -> NDArray[np.uint8]:
    """Bring samples to 8 bits by the full scale; floating point is 0 to 1. Raises ImageError."""
    if values.dtype.kind != "f":
        return to_8_bit(values, top=2**bits - 1)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ImageError("has values outside 0-1, and no certain white")
    return np.rint(values.astype(np.float32) * 255).astype(np.uint8)


def _unmultiply(colors: NDArray, alpha: NDArray) -> NDArray[np.uint8]:
    """Divide premultiplied colors by their alpha; nothing is there where the alpha is 0."""
    share = np.maximum(alpha[..., None], 1e-6 if alpha.dtype.kind == "f" else 1).astype(np.float32)
    return np.rint(np.clip(colors / share, 0, 1) * 255).astype(np.uint8)


def _palette_of(page: Any) -> NDArray[np.uint8]:
    """Return the colors [2^bits, 3] of a palette. Raises ImageError."""
    table = None if page.colormap is None else np.asarray(page.colormap)
    if table is None or page.bitspersample > 16 or table.shape != (3, 2**page.bitspersample):
        raise ImageError("lacks the palette of its colors, or has one of another size")
    # old writers fill in bytes; libtiff takes them so
    return (table if table.max() < 256 else to_8_bit(table)).T.astype(np.uint8)


def _lab(samples: NDArray, *, bits: int, signed: bool) -> NDArray[np.uint8]:
    """Return Lab in 8 bits, a and b as signed bytes. Raises ImageError."""
    if bits not in (8, 16) or samples.dtype.kind == "f":
        raise ImageError(f"holds Lab colors of {bits} bits; only 8 and 16 are supported")
    lightness = to_8_bit(samples[..., :1], top=2**bits - 1)
    zero = 0 if signed else 2 ** (bits - 1)
    axes = (samples[..., 1:] - zero).astype(samples.dtype).view(f"i{bits // 8}")  # wraps around
    if bits == 16:
        axes = np.clip(np.rint(axes / 256), -128, 127)
    return np.concatenate([lightness, axes.astype(np.int8).view(np.uint8)], axis=-1)


def decode_by_pillow(data: bytes, page: Any) -> Image.Image:
    """Decode a page of JPEG or fax strips, or of YCbCr, by Pillow and libtiff. Raises ImageError."""
    compression, photometric, bits = int(page.compression), int(page.photometric), page.bitspersample
    is_known = (
        (compression == JPEG and bits == 8 and photometric in (BLACK_IS_0, RGB, CMYK))
        or (compression == JPEG and bits == 8 and photometric == YCBCR and page.planarconfig == 1)
        or (compression in CCITT and bits == 1 and photometric in (WHITE_IS_0, BLACK_IS_0))
        or (compression in STREAMS and bits == 8 and photometric == YCBCR and page.planarconfig == 1)
    )
    if not is_known:
        raise ImageError(
            f"is packed in an unsupported way (TIFF compression {compression}, photometric interpretation "
            f"{photometric}, {bits} bits); save it as RGB with LZW, deflate or no compression"
        )
    tags: dict[int, Tag] = {}
    for code, letter in COPIED.items():
        if values := _whole_numbers(page, code):
            tags[code] = (letter, values)
    segments = list(_segments(data, page))
    if compression == UNCOMPRESSED:  # which Pillow would read without libtiff, and without its subsampling
        segments = [zlib.compress(segment, 1) for segment in segments]
        compression = DEFLATE
        tags.pop(317, None)
    tags |= {259: ("H", [compression]), 262: ("H", [photometric])}
    file = tiff_file(tags, segments, is_tiled=page.is_tiled)
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
        image.load()
        return image
