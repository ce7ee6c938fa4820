"""The cache: a picture set in memory, on the device where it is needed; each picture is read once."""

from threading import Lock

import torch
from torch import Tensor

from .reader import Reader


class Cache:
    """What the reader reads, [N, 3, r, r] on `device`, filled as pictures are asked for, from any thread."""

    def __init__(self, reader: Reader, device: torch.device) -> None:
        self.reader = reader
        self.device = device
        self.values: Tensor | None = None  # made at the first reading: a feed may be made only to be asked
        self.held = torch.zeros(len(reader.data), dtype=torch.bool)
        self.lock = Lock()

    def read(self, items: Tensor) -> Tensor:
        """Return [B, 3, r, r] on the device, decoding only what is not held yet. Raises ArchiveError."""
        side = self.reader.resolution
        with self.lock:
            if self.values is None:
                shape = (len(self.held), 3, side, side)
                self.values = torch.empty(shape, dtype=self.reader.dtype, device=self.device)
            missing = items[~self.held[items]].unique()
            if len(missing):
                found = self.reader.read(missing.tolist())
                self.values[missing.to(self.device)] = found.to(self.device)
                self.held[missing] = True
        return self.values[items.to(self.device)]
