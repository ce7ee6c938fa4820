"""The feed: an endless, shuffled stream of training pictures, each batch a pure function of its position."""

import os
from concurrent.futures import ThreadPoolExecutor
from math import gcd

import torch
from torch import Tensor

from ..errors import ArchiveError, ConfigError
from ..seeds import generator_for
from .archive import Archive

CACHE_BYTES = 2**30


class Feed:
    """Batches from an archive at `resolution`, by exact area averaging from the archive's own.

    Every epoch shows every picture once (with `mirror`, once as it is and once mirrored) in an order drawn from
    `seed` and the epoch's number. Pictures are kept in memory as uint8 once read, if all of them fit in
    `cache_bytes`. Raises ArchiveError if `resolution` is above the archive's.
    """

    def __init__(
        self,
        archive: Archive,
        *,
        resolution: int,
        seed: int,
        mirror: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        side = archive.resolution
        if resolution < 1:
            raise ConfigError(f"resolution {resolution} is below 1")
        if resolution > side:
            problem = (
                f"holds pictures of {side} px, {resolution} px are asked for; prepare it with --res {resolution}"
            )
            raise ArchiveError(archive.path, problem)
        self.archive = archive
        self.resolution = resolution
        self.seed = seed
        self.mirror = mirror
        self.epoch_size = len(archive) * (2 if mirror else 1)
        self._weights = area_weights(side, resolution)
        self._orders: dict[int, Tensor] = {}
        self._classes = None if archive.labels is None else torch.from_numpy(archive.labels)
        self._cache: Tensor | None = None
        if len(archive) * side * side * 3 <= cache_bytes:
            self._cache = torch.empty(len(archive), 3, side, side, dtype=torch.uint8)
            self._cached = torch.zeros(len(archive), dtype=torch.bool)

    def batch(self, position: int, size: int) -> tuple[Tensor, Tensor | None]:
        """Return pictures float32 [B, 3, r, r] in [-1, 1] and labels int64 [B] (None: unlabelled).

        They are the pictures number `position` to `position + size - 1` of the stream, each the same to the
        last bit however the stream is cut. Raises ArchiveError.
        """
        places = self.places(position, size)
        items = places % len(self.archive)
        pictures = area_average(self._read(items), self._weights)  # [B, 3, r, r]
        flipped = places >= len(self.archive)
        pictures = torch.where(flipped[:, None, None, None], pictures.flip(3), pictures)
        return pictures, None if self._classes is None else self._classes[items]

    def labels(self, rng: torch.Generator, size: int) -> Tensor | None:
        """Return int64 [B] labels of uniformly random items, so that fakes follow the data (None: unlabelled)."""
        if self._classes is None:
            return None
        return self._classes[torch.randint(len(self.archive), (size,), generator=rng)]

    def places(self, position: int, size: int) -> Tensor:
        """Return int64 [B]: item numbers of a stretch of the stream; N is added to those shown mirrored."""
        pieces = []
        while size > 0:
            epoch, start = divmod(position, self.epoch_size)
            piece = self._order(epoch)[start : start + size]
            pieces.append(piece)
            position, size = position + len(piece), size - len(piece)
        return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int64)

    def _order(self, epoch: int) -> Tensor:
        """Return the epoch's order of items, keeping the last two that were asked for."""
        if epoch not in self._orders:
            if len(self._orders) > 1:
                del self._orders[next(iter(self._orders))]
            rng = generator_for(self.seed, "feed", epoch)
            self._orders[epoch] = torch.randperm(self.epoch_size, generator=rng)
        return self._orders[epoch]

    def _read(self, items: Tensor) -> Tensor:
        """Return the items' pictures, uint8 [B, 3, R, R], decoding only what is not in memory."""
        if self._cache is None:
            return torch.stack(self._decode(items.tolist()))
        missing = items[~self._cached[items]].unique().tolist()
        if missing:
            self._cache[missing] = torch.stack(self._decode(missing))
            self._cached[missing] = True
        return self._cache[items]

    def _decode(self, items: list[int]) -> list[Tensor]:
        """Decode items in threads: Pillow lets go of Python's lock while it decodes."""
        with ThreadPoolExecutor(min(len(items), 16, os.cpu_count() or 1)) as pool:
            return [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in pool.map(self.archive.read, items)]


def area_weights(fine: int, coarse: int) -> Tensor:
    """Return [coarse, fine] whole numbers: how much of each fine pixel lies in each coarse one.

    Each row sums to fine / gcd(fine, coarse). The dtype is the smallest in which the sum over a window of uint8
    pixels is exact, hence independent of the order of additions and of the batch.
    """
    divisor = gcd(fine, coarse)
    width, step = fine // divisor, coarse // divisor  # of a coarse and of a fine pixel, in common units
    left = torch.arange(coarse)[:, None] * width
    start = torch.arange(fine)[None, :] * step
    overlap = torch.minimum(left + width, start + step) - torch.maximum(left, start)
    exact = torch.float32 if 255 * width * width < 2**24 else torch.float64
    return overlap.clamp(min=0).to(exact)


def area_average(pixels: Tensor, weights: Tensor) -> Tensor:
    """Average uint8 [..., R, R] to float32 [..., r, r] in [-1, 1], x / 127.5 - 1, by `area_weights(R, r)`."""
    if weights.shape[0] == weights.shape[1]:
        return pixels.to(torch.float32) / 127.5 - 1
    total = weights @ (pixels.to(weights.dtype) @ weights.T)
    return (total / weights[0].sum() ** 2 / 127.5 - 1).to(torch.float32)
