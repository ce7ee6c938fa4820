"""Images of any size, rendered and written tile by tile: pyramidal TIFF and DeepZoom."""

import math
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import DTypeLike, NDArray

from polyinr_core.errors import FileError, RequestError
from polyinr_core.runtime.atomic_io import PathLike, check_place, refuse_overwrite, written_beside

from .io import (
    METADATA_KEY,
    Metadata,
    check_depth,
    check_size,
    encode_image,
    format_metadata,
    in_threads,
    parse_metadata,
    threads_for,
)

Tile = NDArray  # [h, w, 3] uint8 or uint16
RenderTile = Callable[[int, int, int, int, int], Tile]
"""RenderTile(level, left, top, width, height): level 0 is full size, level k has ceil(side / 2^k) pixels a side."""

TIFF_TILE_SIZE = 256  # tiles at the right and bottom edges are rendered smaller
PLAIN_SIDE = 1024  # up to which an image needs no pyramid
PLAIN_BYTES = 2**32 - 2**25  # of a classic TIFF, with a margin for tags and incompressible data
LEVEL_OF_DEFLATE = 4  # 6 takes three times as long and saves a tenth
SUFFIX = ".dzi"
DEEPZOOM_TILE_SIZE = 254  # without overlap; 256 with it
OVERLAP = 1
METADATA_FILE = f"{METADATA_KEY}.json"  # beside the level folders
XML = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008"'
    ' Format="jpg" Overlap="{overlap}" TileSize="{side}">\n'
    '  <Size Width="{width}" Height="{height}"/>\n'
    "</Image>\n"
)


def level_sizes(width: int, height: int, *, smallest: int) -> list[tuple[int, int]]:
    """Return the sizes (width, height) of a pyramid, halved and rounded up until both are at most `smallest`."""
    sizes = [(width, height)]
    while max(sizes[-1]) > smallest:
        scale = 2 ** len(sizes)
        sizes.append((math.ceil(width / scale), math.ceil(height / scale)))
    return sizes


def tile_count(width: int, height: int) -> int:
    """Return how many tiles `write_tiled_tiff` renders, including the pyramid."""
    return sum(_tiles_of(size) for size in _sizes(width, height))


def write_tiled_tiff(
    path: PathLike,
    render_tile: RenderTile,
    *,
    width: int,
    height: int,
    dtype: DTypeLike,
    metadata: Metadata | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write an image (uint8 or uint16) of any size as a TIFF, holding one tile at a time.

    Tiles are 256 x 256 pixels with deflate compression; BigTIFF if the image may exceed 4 GiB. Above 1024 pixels the
    file has a pyramid in SubIFDs, each level half as large and rendered again, not resized, until it fits in a tile.
    `progress` is called with 1 per tile, `tile_count` times. Raises FileError, RequestError, and whatever `render_tile`
    raises; then no file is left.
    """
    path = Path(path)
    check_size("tiff", width=width, height=height)
    check_depth("tiff", dtype)
    dtype = np.dtype(dtype)
    sizes = _sizes(width, height)
    whole = sum(_tiles_of(size) for size in sizes) * TIFF_TILE_SIZE * TIFF_TILE_SIZE * 3 * dtype.itemsize
    with (
        written_beside(path, overwrite=overwrite) as draft,
        draft.open("wb") as file,
        tifffile.TiffWriter(file, bigtiff=whole > PLAIN_BYTES) as tiff,
    ):
        for level, size in enumerate(sizes):
            tiff.write(
                _tiles(render_tile, level, size, dtype, progress),
                shape=(size[1], size[0], 3),
                dtype=dtype,
                photometric="rgb",
                tile=(TIFF_TILE_SIZE, TIFF_TILE_SIZE),
                compression="zlib",
                compressionargs={"level": LEVEL_OF_DEFLATE},
                predictor=True,
                description=format_metadata(metadata) if level == 0 else None,
                metadata=None,
                software=False,
                subifds=len(sizes) - 1 if level == 0 else None,
                subfiletype=0 if level == 0 else 1,
                maxworkers=1,  # with more, tifffile buffers 256 MiB of tiles before it compresses any
            )


def _sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Return the level sizes of a TIFF of that size."""
    return level_sizes(width, height, smallest=TIFF_TILE_SIZE if max(width, height) > PLAIN_SIDE else PLAIN_SIDE)


def _tiles_of(size: tuple[int, int]) -> int:
    return math.ceil(size[0] / TIFF_TILE_SIZE) * math.ceil(size[1] / TIFF_TILE_SIZE)


def _tiles(
    render_tile: RenderTile, level: int, size: tuple[int, int], dtype: np.dtype, progress: Callable[[int], None] | None
) -> Iterator[Tile]:
    """Render the tiles of a level row by row; tifffile pads those at the edges."""
    for top in range(0, size[1], TIFF_TILE_SIZE):
        for left in range(0, size[0], TIFF_TILE_SIZE):
            width, height = min(TIFF_TILE_SIZE, size[0] - left), min(TIFF_TILE_SIZE, size[1] - top)
            tile = render_tile(level, left, top, width, height)
            assert tile.shape == (height, width, 3), tile.shape
            assert tile.dtype == dtype, tile.dtype
            if progress is not None:
                progress(1)
            yield tile


class TileRegion(NamedTuple):
    """A tile: its column and row, and the pixels of its level that it covers, including the overlap."""

    column: int
    row: int
    left: int
    top: int
    width: int
    height: int


def tiles_folder(path: Path) -> Path:
    """Return the folder of tiles of a .dzi file."""
    return path.with_name(f"{path.stem}_files")


def tile_regions(width: int, height: int) -> Iterator[TileRegion]:
    """Yield the tiles of a level of that size, row by row."""
    for row in range(math.ceil(height / DEEPZOOM_TILE_SIZE)):
        top, bottom = max(0, row * DEEPZOOM_TILE_SIZE - OVERLAP), min(height, (row + 1) * DEEPZOOM_TILE_SIZE + OVERLAP)
        for column in range(math.ceil(width / DEEPZOOM_TILE_SIZE)):
            left = max(0, column * DEEPZOOM_TILE_SIZE - OVERLAP)
            right = min(width, (column + 1) * DEEPZOOM_TILE_SIZE + OVERLAP)
            yield TileRegion(column, row, left, top, right - left, bottom - top)


def zoom_tile_count(width: int, height: int) -> int:
    """Return how many tiles `write_deep_zoom` renders."""
    sizes = level_sizes(width, height, smallest=1)
    return sum(math.ceil(across / DEEPZOOM_TILE_SIZE) * math.ceil(down / DEEPZOOM_TILE_SIZE) for across, down in sizes)


def check_deep_zoom(path: Path, *, overwrite: bool) -> None:
    """Raise FileError or RequestError if the .dzi file or its folder cannot be written."""
    if path.suffix.lower() != SUFFIX:
        raise RequestError(f"{path}: a DeepZoom image is named *{SUFFIX}")
    refuse_overwrite(path, overwrite=overwrite)
    folder = tiles_folder(path)
    refuse_overwrite(folder, overwrite=overwrite)
    check_place(folder)
    if folder.exists() and not folder.is_dir():
        raise FileError(folder, "is a file; the tiles need this name for their folder")


def write_deep_zoom(
    path: PathLike,
    render_tile: RenderTile,
    *,
    width: int,
    height: int,
    metadata: Metadata | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write an image of any size as `path` (.dzi) and its folder of tiles, holding a few tiles at a time.

    `render_tile` numbers levels as for a TIFF, 0 is the full size, and returns uint8. The metadata are polyinr.json in
    the folder. `progress` is called with 1 per tile, `zoom_tile_count` times. Raises FileError, RequestError, and
    whatever `render_tile` raises; then no file is left. Overwriting replaces file and folder.
    """
    path = Path(path)
    check_deep_zoom(path, overwrite=overwrite)
    sizes = level_sizes(width, height, smallest=1)
    there = tiles_folder(path).exists()
    try:
        with written_beside(path, overwrite=overwrite) as draft:
            draft.write_text(XML.format(width=width, height=height, side=DEEPZOOM_TILE_SIZE, overlap=OVERLAP))
            with written_beside(tiles_folder(path), overwrite=overwrite, durable=False) as folder:
                folder.mkdir()  # complete before the .dzi is written
                for _ in in_threads(
                    _zoom_tiles(folder, render_tile, sizes), threads=threads_for(DEEPZOOM_TILE_SIZE**2 * 3)
                ):
                    if progress is not None:
                        progress(1)
                if metadata is not None:
                    (folder / METADATA_FILE).write_text(format_metadata(metadata), encoding="utf-8")
    except BaseException:
        if not there:  # the folder is useless without the .dzi
            shutil.rmtree(tiles_folder(path), ignore_errors=True)
        raise


def read_deep_zoom_metadata(path: Path) -> Metadata:
    """Read the metadata of a DeepZoom image, empty if there are none."""
    try:
        return parse_metadata((tiles_folder(path) / METADATA_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _zoom_tiles(folder: Path, render_tile: RenderTile, sizes: list[tuple[int, int]]) -> Iterator[Callable[[], object]]:
    """Render the tiles of all levels; yield a function for each that writes it."""
    for level, size in enumerate(sizes):
        level_folder = folder / str(len(sizes) - 1 - level)
        level_folder.mkdir()
        for region in tile_regions(*size):
            tile = render_tile(level, region.left, region.top, region.width, region.height)
            assert tile.shape == (region.height, region.width, 3), tile.shape
            yield partial(_write_tile, level_folder / f"{region.column}_{region.row}.jpg", np.ascontiguousarray(tile))


def _write_tile(path: Path, tile: NDArray) -> None:
    path.write_bytes(encode_image(tile, format="jpeg"))
