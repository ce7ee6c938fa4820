"""The spread of realism as one picture: the best, middling and worst that a model draws, with captions."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..pictures.captions import caption
from ..pictures.sheet import GAP, Pixels, sheet

COLUMNS = 8
SIDE = 96  # pixels that a picture has at least, so that its caption can be read
LINE = 14
TITLE = 22


def realism_sheet(groups: Mapping[str, Sequence[tuple[Pixels, str]]]) -> Pixels:
    """Set groups of pictures [r, r, 3], each with its caption below, under one another: [H, W, 3].

    Every picture is enlarged by a whole factor, by repeating pixels, to SIDE or more.
    """
    blocks = [block(title, pictures) for title, pictures in groups.items()]
    width = max(part.shape[1] for part in blocks)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in blocks]
    )


def block(title: str, pictures: Sequence[tuple[Pixels, str]]) -> Pixels:
    """Return one group: its title, and its pictures in rows."""
    cells = []
    for pixels, words in pictures:
        factor = -(-SIDE // len(pixels))
        large = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        cells.append(np.concatenate([large, caption(words, width=large.shape[1], height=LINE)]))
    rows = sheet(np.stack(cells), COLUMNS)
    heading = caption(title, width=max(rows.shape[1], COLUMNS * SIDE), height=TITLE)
    lines = np.pad(rows, ((GAP, GAP), (0, heading.shape[1] - rows.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([heading, lines])
