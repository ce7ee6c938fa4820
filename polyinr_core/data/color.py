"""Color profiles: from an image's own color space to sRGB, by the effect of a profile and not by its name."""

import io
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from polyinr_core.errors import ImageError

MAX_PROFILE_BYTES = 2**24  # unpacked: more than any press profile takes
TOLERANCE = 2  # of 255: a profile that moves no color further is sRGB's, up to its own rounding
SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK", "LAB": b"Lab "}
Primaries = tuple[float, ...]  # white x, y, then red, green and blue: the order of PNG's cHRM
D65 = (0.3127, 0.3290)
SRGB: Primaries = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
D50 = (0.9642, 1.0, 0.8249)  # the white of all profiles, as XYZ
# ITU-T H.273, table 2
CICP_PRIMARIES: dict[int, Primaries] = {
    1: SRGB,
    2: SRGB,  # unspecified
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
# ITU-T H.273, table 3: the power of the curve; None, also for television (1, 6, 14, 15), is sRGB's, as in browsers
CICP_EXPONENTS: dict[int, float | None] = {4: 2.2, 5: 2.8, 8: 1.0, **dict.fromkeys((1, 2, 6, 13, 14, 15))}
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert a gray (L), RGB, CMYK or LAB image to RGB by its color profile, or as sRGB where it has none.

    A damaged profile, or one for other channels, is ignored: the values are then taken as sRGB.
    """
    if image.mode == "L" and profile and profile[16:20] == SPACES["RGB"]:
        image = image.convert("RGB")
    if (transform := _transform(profile or b"", image.mode)) is not None:
        return transform.apply(image)
    return image.convert("RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of a profile to sRGB, None where the values are sRGB already."""
    fits = profile[16:20] == SPACES.get(mode)
    if not fits and mode != "LAB":
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if fits else ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode in ("L", "RGB") and _is_identity(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform leaves all grays, and a lattice of colors, unchanged.

    RGB of sRGB's primaries and a plain power of 2.2 is sRGB as well, in its simplified form, as in PNG's gAMA.
    """
    values = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    if mode == "RGB":
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        values = np.concatenate([values, np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)])
    image = Image.fromarray(values[None, :, 0] if mode == "L" else values[None])
    moved = np.asarray(transform.apply(image), dtype=np.int16)[0]
    if np.abs(moved - values).max() <= TOLERANCE:
        return True
    if mode == "L":
        return False
    source = ImageCms.ImageCmsProfile(io.BytesIO(matrix_profile(SRGB, 2.2) or b""))
    simplified = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    return bool(np.abs(moved - np.asarray(simplified.apply(image), dtype=np.int16)[0]).max() <= TOLERANCE)


def png_profile(chunks: Mapping[bytes, bytes]) -> bytes | None:
    """Return the profile that a PNG's color chunks amount to, None for sRGB. Raises ImageError for HDR.

    The first of cICP, iCCP, sRGB, gAMA with cHRM counts (PNG, third edition, section 4.3).
    """
    if len(cicp := chunks.get(b"cICP", b"")) == 4:
        if not cicp[3]:
            raise ImageError("holds video levels (cICP without full range); save it with full-range colors")
        return cicp_profile(cicp[0], cicp[1])
    if profile := _unpacked_profile(chunks.get(b"iCCP", b"")):
        return profile
    if b"sRGB" in chunks:
        return None
    primaries = gamma = None
    if len(chrm := chunks.get(b"cHRM", b"")) == 32:
        primaries = tuple(value / 100_000 for value in struct.unpack(">8I", chrm))
    if len(gama := chunks.get(b"gAMA", b"")) == 4:
        gamma = struct.unpack(">I", gama)[0] / 100_000
        if not 0.05 <= gamma <= 20:
            gamma = None  # a damaged value: no image has it
        elif abs(gamma * 2.2 - 1) <= 0.05:
            gamma = None  # it stands for sRGB's curve; libpng's tolerance
    if primaries is None and gamma is None:
        return None
    return matrix_profile(primaries or SRGB, None if gamma is None else 1 / gamma)


def cicp_profile(primaries: int, transfer: int) -> bytes | None:
    """Return the profile of code points of ITU-T H.273, None for sRGB's. Raises ImageError."""
    if transfer in HDR_TRANSFERS:
        raise ImageError(
            f"holds high-dynamic-range colors ({HDR_TRANSFERS[transfer]}), which sRGB cannot show; tone-map it"
        )
    if primaries not in CICP_PRIMARIES or transfer not in CICP_EXPONENTS:
        raise ImageError(
            f"holds colors of an unsupported kind (CICP primaries {primaries}, transfer {transfer}); use sRGB"
        )
    chosen, exponent = CICP_PRIMARIES[primaries], CICP_EXPONENTS[transfer]
    return None if chosen == SRGB and exponent is None else matrix_profile(chosen, exponent)


def _unpacked_profile(chunk: bytes) -> bytes | None:
    """Return the profile in an iCCP chunk, None where there is none that can be read."""
    _, found, packed = chunk.partition(b"\0")
    if not found or packed[:1] != b"\0":  # the only method of compression
        return None
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(packed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if profile[36:40] == b"acsp" and not unpacker.unconsumed_tail else None


def matrix_profile(primaries: Primaries, exponent: float | None) -> bytes | None:
    """Return an RGB profile of primaries and a power (None: sRGB's curve); None for impossible primaries.

    ICC.1:2010, sections 8.3 and 10; the white is adapted to D50 by Bradford's matrix (annex E).
    """
    points = np.array(primaries).reshape(4, 2)
    if (points[:, 1] <= 0).any() or not np.isfinite(points).all():
        return None
    xyz = np.column_stack([points[:, 0], points[:, 1], 1 - points.sum(1)]) / points[:, 1:]
    white, colors = xyz[0], xyz[1:].T
    if abs(np.linalg.det(colors)) < 1e-6:
        return None
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gains = (bradford @ D50) / (bradford @ white)
    adapted = np.linalg.inv(bradford) @ (gains[:, None] * bradford) @ (colors * np.linalg.solve(colors, white))
    if not np.isfinite(adapted).all() or np.abs(adapted).max() > 1000:
        return None
    if exponent is None:  # IEC 61966-2-1
        curve = struct.pack(">4s4xHH", b"para", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    else:
        curve = struct.pack(">4s4xHH", b"para", 0, 0) + _fixed(exponent)
    tags = [(name, b"XYZ \0\0\0\0" + _fixed(*adapted[:, i])) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
    tags += [(b"wtpt", b"XYZ \0\0\0\0" + _fixed(*D50))] + [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    at = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags:
        table += struct.pack(">4sII", name, at + len(body), len(value))
        body += value
    size = at + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x04200000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head.ljust(68, b"\0") + _fixed(*D50).ljust(60, b"\0") + table + body


def _fixed(*values: float) -> bytes:
    """Pack numbers as ICC's s15Fixed16Number."""
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


@lru_cache(maxsize=16)
def _rounding(top: int) -> NDArray[np.uint8]:
    """Return round(255 v / top) for all v up to `top`; there are no halves, as `top` is odd."""
    values = np.arange(top + 1)
    return ((510 * values + top) // (2 * top)).astype(np.uint8)


def to_8_bit(values: NDArray, *, top: int = 65535) -> NDArray[np.uint8]:
    """Scale integers in 0 .. top = 2^bits - 1 to 8 bits and round: round(v / 257) for 16 bits."""
    return values.astype(np.uint8, copy=False) if top == 255 else _rounding(top)[values]
