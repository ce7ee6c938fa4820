"""The film strip of a run: the same seeds as columns, one row a record, the oldest on top."""

from pathlib import Path

import numpy as np
from PIL import Image

from ..pictures.sheet import GAP, Pixels, sheet

MOST_ROWS = 64
LARGEST_TILE = 128  # pixels


def film_strip(sheets: list[Path], *, columns: int, rows: int) -> Pixels | None:
    """Set the first row of each sheet, columns x rows pictures, above each other; None if there is no sheet.

    Every picture is brought to one size, that of the largest but `LARGEST_TILE` at most: reduced by area,
    enlarged by repeating pixels. Of more than `MOST_ROWS` sheets, so many are taken evenly, the first and the
    last among them. A file that is no such sheet is left out. One sheet at a time is in memory.
    """
    sides = {path: side for path in sheets if (side := side_of(path, columns=columns, rows=rows))}
    if not sides:
        return None
    paths = thinned(list(sides), MOST_ROWS)
    tile = min(max(sides[path] for path in paths), LARGEST_TILE)
    strips = [strip for path in paths if (strip := first_row(path, columns, side=sides[path], tile=tile))]
    return sheet(np.concatenate(strips), columns) if strips else None


def side_of(path: Path, *, columns: int, rows: int) -> int | None:
    """Return the side of the pictures on a sheet, None if the file is no such sheet. Decodes nothing."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    side = (width - (columns - 1) * GAP) // columns
    whole = (columns * side + (columns - 1) * GAP, rows * side + (rows - 1) * GAP)
    return side if side > 0 and (width, height) == whole else None


def thinned(paths: list[Path], most: int) -> list[Path]:
    """Return at most so many of the paths, spread evenly from the first to the last."""
    if len(paths) <= most:
        return paths
    return [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]


def first_row(path: Path, columns: int, *, side: int, tile: int) -> list[Pixels]:
    """Return the first pictures of a sheet, [tile, tile, 3] each; none if it is damaged."""
    try:
        with Image.open(path) as image:
            row = image.crop((0, 0, columns * (side + GAP) - GAP, side)).convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return []
    method = Image.Resampling.BOX if tile < side else Image.Resampling.NEAREST
    pictures = [row.crop((left, 0, left + side, side)) for left in range(0, row.width, side + GAP)]
    return [np.asarray(picture.resize((tile, tile), method)) for picture in pictures]
