"""PNG, JPEG, WebP and AVIF files cut down to what their pixels depend on.

Texts, dates, thumbnails, later frames and other things around an image are often odd: no reason to refuse it.
What decides how the pixels look (color profile, orientation, transparent color) is read here, tolerantly.
"""

import re
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from polyinr_core.errors import ImageError

from .color import cicp_profile, png_profile

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PNG_FACTS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"tRNS")
ORIENTATION = 0x0112
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # the types of EXIF entries that hold whole numbers
AVIF_EXIF = re.compile(rb"(infe\x02.{7})Exif", re.DOTALL)
AVIF_CICP = re.compile(rb"colrnclx(....)", re.DOTALL)
AVIF_HEAD_BYTES = 2**16


class Stripped(NamedTuple):
    """A file's bytes without what its pixels do not depend on, and what was said beside them.

    `chunks` are a PNG's ancillary chunks that count, `orientation` is EXIF's number, 1 upright.
    """

    data: bytes
    kind: str = ""
    profile: bytes | None = None
    orientation: int = 1
    chunks: Mapping[bytes, bytes] = {}


def stripped(data: bytes) -> Stripped:
    """Cut an image file down; one of another kind is returned as it is. Raises ImageError for HDR colors."""
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
    """Keep the critical chunks, and tRNS of a palette. An ancillary chunk with a wrong sum is void."""
    kept = [(0, len(PNG_HEAD))]
    chunks: dict[bytes, bytes] = {}
    at = len(PNG_HEAD)
    has_palette = has_pixels = False
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        keep = kind in PNG_CRITICAL
        if not (keep or has_pixels or kind[0] & 32):
            raise ImageError(f"cannot be decoded (a PNG with an unknown critical chunk, {kind!r})")
        has_pixels |= kind == b"IDAT"
        has_palette |= kind == b"PLTE" and data[25:26] == b"\3"
        is_late = has_pixels and kind != b"eXIf"  # the only one that may follow
        if kind in PNG_FACTS and not is_late and kind not in chunks and end <= len(data):
            body = data[at + 8 : end - 4]
            if zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(data[end - 4 : end]):
                chunks[kind] = body
                keep = has_palette and kind == b"tRNS"
        if keep and kept[-1][1] == at:
            kept[-1] = (kept[-1][0], end)
        elif keep:
            kept.append((at, end))
        if kind == b"IEND":
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
        kind, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length
        if kind == b"VP8X" and length >= 10:
            flags = data[at + 8] & 0x12  # animated, alpha: what else it announces is dropped
            kept.append(data[at : at + 8] + bytes([flags]) + data[at + 9 : end + length % 2])
        elif kind in (b"ANIM", b"ALPH", b"VP8 ", b"VP8L") or (kind == b"ANMF" and not is_animated):
            kept.append(data[at : end + length % 2])
            is_animated |= kind == b"ANMF"
        elif kind == b"ICCP" and profile is None and end <= len(data):
            profile = data[at + 8 : end]
        elif kind == b"EXIF" and not exif and end <= len(data):
            exif = data[at + 8 : end]
        at = end + length % 2
    body = b"".join(kept)
    # what is cut off stays so: the length says what should be there
    whole = b"RIFF" + struct.pack("<I", 4 + len(body) + len(body) % 2) + b"WEBP" + body
    return Stripped(whole, "WEBP", profile, exif_orientation(exif))


def _avif(data: bytes) -> Stripped:
    """Hide EXIF, which must not turn an AVIF (its own transform boxes do), and read the color code points."""
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
        tag, kind, length = struct.unpack_from(f"{order}HHI", exif, at)
        if tag == ORIENTATION:
            if kind not in INTEGERS or length < 1:
                return 1
            value = struct.unpack_from(f"{order}{INTEGERS[kind]}", exif, at + 8)[0]
            return value if 1 <= value <= 8 else 1
    return 1
