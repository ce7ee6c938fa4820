"""The reader: items of a picture set at the resolution asked for, decoded in threads."""

import os
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from .averaging import area_average, area_weights
from .picture_set import PictureSet

THREADS = 16


class Reader:
    """Reads items at `resolution`: uint8 where it is the set's own, else float32 area averages in [-1, 1]."""

    def __init__(self, data: PictureSet, resolution: int) -> None:
        self.data = data
        self.resolution = resolution
        self.weights = None if resolution == data.resolution else area_weights(data.resolution, resolution)

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of what is read."""
        return torch.uint8 if self.weights is None else torch.float32

    @property
    def set_bytes(self) -> int:
        """Return how much memory the whole set takes as it is read."""
        return len(self.data) * 3 * self.resolution**2 * self.dtype.itemsize

    def read(self, items: list[int], *, threads: int = min(THREADS, os.cpu_count() or 1)) -> Tensor:
        """Return [B, 3, r, r]; Pillow lets go of Python's lock while it decodes. Raises ArchiveError."""
        if threads == 1 or len(items) < 2:
            return torch.stack([self.picture(item) for item in items])
        with ThreadPoolExecutor(min(len(items), threads)) as pool:
            return torch.stack(list(pool.map(self.picture, items)))

    def picture(self, item: int) -> Tensor:
        """Return one item, [3, r, r]. Raises ArchiveError, FileError."""
        pixels = torch.from_numpy(self.data.read(item)).permute(2, 0, 1)
        return pixels if self.weights is None else area_average(pixels, self.weights)
