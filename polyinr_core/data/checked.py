"""A picture of a data set: decoded, square, and of the size of the first one, or one clear line."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError, PictureError
from .decoding import decode


def decoded(path: Path, name: str, data: bytes, *, side: int | None) -> NDArray[np.uint8]:
    """Decode a picture file to uint8 [R, R, 3], R = `side` (None: this is the first one, any side will do).

    Grey, palette and deep pictures become RGB. Raises ArchiveError.
    """
    try:
        pixels = np.array(decode(data))  # a copy, writable
    except PictureError as error:
        raise ArchiveError(path, f"the picture {name!r} {error}") from error
    height, width = pixels.shape[:2]
    if not height == width == (side or width):
        expected = "square" if side is None else f"{side}x{side} as the first"
        raise ArchiveError(
            path, f"the picture {name!r} is {width}x{height}, not {expected}; use `polyinr prepare`"
        )
    return pixels
