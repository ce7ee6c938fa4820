"""PNG with 16 bits a colour, which Pillow does not write."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import png
from numpy.typing import NDArray

BAND_BYTES = 2**20  # filtered and deflated at a time
SUB = 1  # the filter: each byte less that of the pixel to its left; PNG specification, section 9.2
PIXEL_BYTES = 6
LEVEL_OF_DEFLATE = 1  # filtered colours gain little from more, and 6 takes six times as long


def write_deep_png(file: BinaryIO, pixels: NDArray[np.uint16], *, key: str, text: str = "") -> None:
    """Write pixels [H, W, 3] (uint16) into an open file, with an ASCII text, if any, under `key` before them."""
    height, width, _ = pixels.shape
    png.Writer(width, height, greyscale=False, bitdepth=16).write_preamble(file)
    if text:
        png.write_chunk(file, b"tEXt", key.encode("latin-1") + b"\0" + text.encode("ascii"))
    packer = zlib.compressobj(LEVEL_OF_DEFLATE)
    for band in _filtered(pixels):
        packed = packer.compress(band)
        if packed:
            png.write_chunk(file, b"IDAT", packed)
    png.write_chunk(file, b"IDAT", packer.flush())
    png.write_chunk(file, b"IEND")


def _filtered(pixels: NDArray[np.uint16]) -> Iterator[bytes]:
    """Yield the rows as PNG keeps them: big endian, filtered, each after the filter's number."""
    height, width, _ = pixels.shape
    rows = max(1, BAND_BYTES // (width * PIXEL_BYTES))
    for top in range(0, height, rows):
        band = np.ascontiguousarray(pixels[top : top + rows], dtype=">u2")
        data = band.reshape(len(band), -1).view(np.uint8)  # [rows, W * 6]
        lines = np.empty((len(band), 1 + data.shape[1]), dtype=np.uint8)
        lines[:, 0] = SUB
        lines[:, 1 : 1 + PIXEL_BYTES] = data[:, :PIXEL_BYTES]
        np.subtract(data[:, PIXEL_BYTES:], data[:, :-PIXEL_BYTES], out=lines[:, 1 + PIXEL_BYTES :])
        yield lines.tobytes()
