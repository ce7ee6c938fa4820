"""How much pictures differ from each other: what a collapsing generator loses."""

import numpy as np
from PIL import Image
from scipy.spatial.distance import pdist, squareform

from ..pictures.sheet import Pixels

SIDE = 16  # pixels: shapes and colours, no texture


def spread(pictures: Pixels) -> float:
    """Return the mean over pictures [N, r, r, 3] of the distance to the one that is most like it, 0 to 2.

    The distance is the root mean square over the colours in [-1, 1], brought to 16 px by area. The nearest
    picture, unlike the mean over all pairs, shows a generator that has a few shapes left, each of its own colour
    or place: those are far from each other, and each is drawn many times.
    """
    if len(pictures) < 2:
        return 0.0
    small = [Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX) for picture in pictures]
    flat = np.stack([np.asarray(picture, dtype=np.float64).ravel() for picture in small]) / 127.5
    distances = squareform(pdist(flat)) / np.sqrt(flat.shape[1])  # [N, N]
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).mean())
