"""DeepZoom: a picture of any size as a folder of small JPEG tiles, for viewers in a web page.

`NAME.dzi` says the size; `NAME_files/LEVEL/COLUMN_ROW.jpg` are the tiles. Level 0 is one pixel, each next one
twice as large, the last the whole picture. Schema: http://schemas.microsoft.com/deepzoom/2008.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, RequestError
from ..files import PathLike, check_place, refuse_overwrite, written_beside
from .bulk import in_threads, threads_for
from .files import NOTE_KEY, Note, encode_picture, note_text, parsed_note
from .tiled_tiff import Draw, level_sizes

SUFFIX = ".dzi"
SIDE = 254  # of a tile without its overlap: with it, 256 inside the picture
OVERLAP = 1
NOTE_FILE = f"{NOTE_KEY}.json"  # among the levels; viewers ask for tiles alone
XML = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008"'
    ' Format="jpg" Overlap="{overlap}" TileSize="{side}">\n'
    '  <Size Width="{width}" Height="{height}"/>\n'
    "</Image>\n"
)


class Place(NamedTuple):
    """A tile: its column and row, and the pixels of its level that it shows, overlap and all."""

    column: int
    row: int
    left: int
    top: int
    width: int
    height: int


def tiles_folder(path: Path) -> Path:
    """Return the folder of tiles that goes with a .dzi file."""
    return path.with_name(f"{path.stem}_files")


def places(width: int, height: int) -> Iterator[Place]:
    """Yield the tiles of a level of that size, row by row."""
    for row in range(math.ceil(height / SIDE)):
        top, bottom = max(0, row * SIDE - OVERLAP), min(height, (row + 1) * SIDE + OVERLAP)
        for column in range(math.ceil(width / SIDE)):
            left, right = max(0, column * SIDE - OVERLAP), min(width, (column + 1) * SIDE + OVERLAP)
            yield Place(column, row, left, top, right - left, bottom - top)


def zoom_tile_count(width: int, height: int) -> int:
    """Return how many tiles `write_deep_zoom` draws for a picture of that size."""
    sizes = level_sizes(width, height, smallest=1)
    return sum(math.ceil(across / SIDE) * math.ceil(down / SIDE) for across, down in sizes)


def check_deep_zoom(path: Path, *, overwrite: bool) -> None:
    """Raise FileError if the .dzi or its folder is there already and is not to be replaced."""
    if path.suffix.lower() != SUFFIX:
        raise RequestError(f"{path}: a DeepZoom picture is named *{SUFFIX}")
    refuse_overwrite(path, overwrite=overwrite)
    folder = tiles_folder(path)
    refuse_overwrite(folder, overwrite=overwrite)
    check_place(folder)
    if folder.exists() and not folder.is_dir():
        raise FileError(folder, "is a file; the tiles need this name for their folder")


def write_deep_zoom(
    path: PathLike,
    draw: Draw,
    *,
    width: int,
    height: int,
    note: Note | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a picture of any size as `path` (.dzi) and its folder of tiles, holding a few tiles at a time.

    `draw` counts its levels as for a TIFF, 0 the full size, and gives uint8. The note lies in the folder as
    polyinr.json. `progress` is told 1 a tile, `zoom_tile_count` times. Raises FileError, RequestError, and
    whatever `draw` raises; then nothing is left behind. Overwriting replaces file and folder.
    """
    path = Path(path)
    check_deep_zoom(path, overwrite=overwrite)
    sizes = level_sizes(width, height, smallest=1)
    there = tiles_folder(path).exists()
    try:
        with written_beside(path, overwrite=overwrite) as draft:
            draft.write_text(XML.format(width=width, height=height, side=SIDE, overlap=OVERLAP))
            with written_beside(tiles_folder(path), overwrite=overwrite, durable=False) as folder:
                folder.mkdir()  # all of it is in place before the .dzi
                for _ in in_threads(_tiles(folder, draw, sizes), threads=threads_for(SIDE**2 * 3)):
                    if progress is not None:
                        progress(1)
                if note is not None:
                    (folder / NOTE_FILE).write_text(note_text(note), encoding="utf-8")
    except BaseException:
        if not there:  # the folder is of no use without the .dzi, if it got so far
            shutil.rmtree(tiles_folder(path), ignore_errors=True)
        raise


def read_deep_zoom_note(path: Path) -> Note:
    """Return the note that lies among a .dzi file's tiles, empty if there is none."""
    try:
        return parsed_note((tiles_folder(path) / NOTE_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _tiles(folder: Path, draw: Draw, sizes: list[tuple[int, int]]) -> Iterator[Callable[[], object]]:
    """Draw the tiles of all levels, and yield what writes each into its level's folder."""
    for level, size in enumerate(sizes):
        own = folder / str(len(sizes) - 1 - level)
        own.mkdir()
        for place in places(*size):
            tile = draw(level, place.left, place.top, place.width, place.height)
            assert tile.shape == (place.height, place.width, 3), tile.shape
            yield partial(_write_tile, own / f"{place.column}_{place.row}.jpg", np.ascontiguousarray(tile))


def _write_tile(path: Path, tile: NDArray) -> None:
    path.write_bytes(encode_picture(tile, format="jpeg"))
