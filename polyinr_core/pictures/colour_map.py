"""Perceptual colour maps: numbers between 0 and 1 as colours whose lightness rises evenly with them."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PolyinrError, RequestError

NAMES = ("fire", "bmy", "bgy", "kbc", "gray")
"""Linear maps of colorcet, dark to light (Peter Kovesi, "Good Colour Maps", 2015)."""


def colour(values: NDArray[np.floating[Any]], name: str = "fire") -> NDArray[np.uint8]:
    """Return the colours [..., 3] of values [...], clamped to 0-1.

    Raises RequestError for an unknown name, PolyinrError for a value that is no number.
    """
    if name not in NAMES:
        raise RequestError(f"colour map {name!r} is not known; use {', '.join(NAMES)}")
    if np.isnan(values).any():
        raise PolyinrError("values that are no numbers have no colour")
    table = _table(name)
    return table[np.rint(np.clip(values, 0, 1) * (len(table) - 1)).astype(np.intp)]


@lru_cache(maxsize=len(NAMES))
def _table(name: str) -> NDArray[np.uint8]:
    """Return the map's 256 colours [256, 3]."""
    import colorcet  # a tenth of a second

    return np.array(
        [list(bytes.fromhex(text.removeprefix("#"))) for text in colorcet.palette[name]], dtype=np.uint8
    )
