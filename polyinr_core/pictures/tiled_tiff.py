"""Tiled TIFF files of any size, with their pyramid, drawn and written tile by tile."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import DTypeLike, NDArray

from ..files import PathLike, written_beside
from .files import Note, check_depth, check_size, note_text

Tile = NDArray  # [h, w, 3] uint8 or uint16
Draw = Callable[[int, int, int, int, int], Tile]
"""Draw(level, left, top, width, height): level 0 is full size, level k has ceil(side / 2^k) pixels a side."""

SIDE = 256  # pixels a tile; those at the right and bottom edges are drawn smaller
PLAIN_SIDE = 1024  # up to here a picture needs no pyramid
PLAIN_BYTES = 2**32 - 2**25  # a classic TIFF counts bytes with 32 bits; deflate may add a little, the tags too
LEVEL_OF_DEFLATE = 4  # 6 takes thrice as long for a tenth less


def level_sizes(width: int, height: int, *, smallest: int) -> list[tuple[int, int]]:
    """Return the sizes (width, height) of a pyramid's levels, halved and rounded up until both are `smallest`."""
    sizes = [(width, height)]
    while max(sizes[-1]) > smallest:
        scale = 2 ** len(sizes)
        sizes.append((math.ceil(width / scale), math.ceil(height / scale)))
    return sizes


def tile_count(width: int, height: int) -> int:
    """Return how many tiles `write_tiled_tiff` draws for a picture of that size, its pyramid counted too."""
    return sum(_tiles_of(size) for size in _sizes(width, height))


def write_tiled_tiff(
    path: PathLike,
    draw: Draw,
    *,
    width: int,
    height: int,
    dtype: DTypeLike,
    note: Note | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a picture (uint8 or uint16) of any size as a TIFF, holding one tile at a time.

    Deflated tiles of 256 x 256; a BigTIFF where the picture could outgrow 4 GiB; above 1024 pixels a side with a
    pyramid as SubIFDs, each level half the last and drawn anew, not shrunk, until it fits into a tile.
    `progress` is told 1 a tile, `tile_count` times. Raises FileError, RequestError, and whatever `draw` raises;
    then nothing is left behind.
    """
    path = Path(path)
    check_size("tiff", width=width, height=height)
    check_depth("tiff", dtype)
    dtype = np.dtype(dtype)
    sizes = _sizes(width, height)
    whole = sum(_tiles_of(size) for size in sizes) * SIDE * SIDE * 3 * dtype.itemsize
    with (
        written_beside(path, overwrite=overwrite) as draft,
        draft.open("wb") as file,
        tifffile.TiffWriter(file, bigtiff=whole > PLAIN_BYTES) as tiff,
    ):
        for level, size in enumerate(sizes):
            tiff.write(
                _tiles(draw, level, size, dtype, progress),
                shape=(size[1], size[0], 3),
                dtype=dtype,
                photometric="rgb",
                tile=(SIDE, SIDE),
                compression="zlib",
                compressionargs={"level": LEVEL_OF_DEFLATE},
                predictor=True,
                description=note_text(note) if level == 0 else None,
                metadata=None,
                software=False,
                subifds=len(sizes) - 1 if level == 0 else None,
                subfiletype=0 if level == 0 else 1,
                maxworkers=1,  # with more, tifffile draws 256 MiB of tiles ahead before it deflates any
            )


def _sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Return the sizes of the levels that a TIFF of that size holds."""
    return level_sizes(width, height, smallest=SIDE if max(width, height) > PLAIN_SIDE else PLAIN_SIDE)


def _tiles_of(size: tuple[int, int]) -> int:
    return math.ceil(size[0] / SIDE) * math.ceil(size[1] / SIDE)


def _tiles(
    draw: Draw, level: int, size: tuple[int, int], dtype: np.dtype, progress: Callable[[int], None] | None
) -> Iterator[Tile]:
    """Draw a level's tiles, row by row; tifffile pads those at the edges."""
    for top in range(0, size[1], SIDE):
        for left in range(0, size[0], SIDE):
            width, height = min(SIDE, size[0] - left), min(SIDE, size[1] - top)
            tile = draw(level, left, top, width, height)
            assert tile.shape == (height, width, 3), tile.shape
            assert tile.dtype == dtype, tile.dtype
            if progress is not None:
                progress(1)
            yield tile
