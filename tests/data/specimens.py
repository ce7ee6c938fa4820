"""Small images, zip files and tar files for the tests of datasets."""

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from polyinr_core.data.decode import decode
from polyinr_core.data.import_sources import Source
from polyinr_core.data.labels import LabelInfo

SRGB_COLORANTS = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def noise(side: int = 8, seed: int = 0) -> np.ndarray:
    """Random pixels, uint8 [side, side, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """An image as the bytes of a file."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format=kind, **options)
    return file.getvalue()


def decoded(data: bytes, **options: object) -> np.ndarray:
    """Decode to an array [H, W, 3], checking that it is plain RGB without metadata."""
    image = decode(data, **options)
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image)


def labels_of(source: Source) -> LabelInfo:
    """The labels of all images of a source."""
    return source.labels.resolve(source.path, source.name_of)[0]


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip with these files."""
    with zipfile.ZipFile(path, "w", compression) as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    """A tar with these files."""
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def stylegan_names(count: int) -> list[str]:
    """The names that StyleGAN's tool gives."""
    return [f"00000/img{index:08d}.png" for index in range(count)]


def write_dataset(path: Path, *, count: int = 6, side: int = 8, labels: object = "cycle", **facts: object) -> Path:
    """A dataset as StyleGAN's tool writes it, of noise; by default with the labels 0, 1, 2, 0, ..."""
    names = stylegan_names(count)
    if labels == "cycle":
        labels = [[name, index % 3] for index, name in enumerate(names)]
    files = {name: encoded(noise(side, index), compress_level=0) for index, name in enumerate(names)}
    files["dataset.json"] = json.dumps({"labels": labels, **facts}).encode()
    return write_zip(path, files)


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def png_chunk(kind: bytes, data: bytes, *, wrong_sum: bool = False) -> bytes:
    """A chunk of a PNG file."""
    total = zlib.crc32(kind + data) ^ wrong_sum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", total)


def png_file(samples: np.ndarray, *, depth: int, color_type: int, chunks: bytes = b"", palette: bytes = b"") -> bytes:
    """A PNG of samples [H, W, C] of any depth, written by hand as Pillow writes only some."""
    height, width, _ = samples.shape
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:  # from the highest bit on, each row in whole bytes
        bits = samples[..., None] >> np.arange(depth - 1, -1, -1) & 1
        rows = [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bits]
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + (png_chunk(b"PLTE", palette) if palette else b"")
        + chunks
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


def with_chunks(data: bytes, chunks: bytes, *, before: bytes = b"IDAT") -> bytes:
    """A PNG with more chunks before its first one of a kind."""
    at = data.index(before) - 4
    return data[:at] + chunks + data[at:]


def icc_profile(
    *, space: bytes = b"RGB ", gamma: float = 1.0, colorants: Sequence[Sequence[float]] = (), name: str = "a profile"
) -> bytes:
    """A color profile of a plain power; `colorants` are the XYZ of red, green, blue under D50."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    text = name.encode("ascii") + b"\0"
    tags = [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)), (b"wtpt", white)]
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    else:
        for letter, xyz in zip((b"r", b"g", b"b"), colorants or SRGB_COLORANTS, strict=True):
            values = struct.pack(">3i", *(round(value * 65536) for value in xyz))
            tags += [(letter + b"XYZ", b"XYZ \0\0\0\0" + values), (letter + b"TRC", curve)]
    at = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, value in tags:
        table += struct.pack(">4sII", tag, at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", at + len(body), 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    return head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061).ljust(60, b"\0") + table + body


def exif_block(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """An EXIF block of entries (tag, type, count, the four bytes of the value), as TIFF lays them out."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    packed = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    return head + struct.pack(f"{order}IH", 8, len(entries)) + packed + bytes(4)
