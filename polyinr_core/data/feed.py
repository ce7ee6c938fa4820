"""The feed: an endless, shuffled stream of training pictures, each batch a pure function of its position."""

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import count as counted
from itertools import tee

import torch
from torch import Tensor

from ..errors import ArchiveError, ConfigError
from ..ranks import ALONE, CPU, Ranks
from .ahead import ahead
from .averaging import normalised
from .cache import Cache
from .order import Order
from .picture_set import PictureSet
from .reader import Reader
from .workers import read_by_workers

CACHE_BYTES = 2**30
AHEAD = 2  # iterations
MOST_WORKERS = 4  # that are started where their number is left to us

Pictures = tuple[Tensor, Tensor | None]  # float32 [B, 3, r, r] in [-1, 1], labels int64 [B] (None: unlabelled)


class Feed:
    """Batches from a picture set at `resolution`, by exact area averaging from the set's own, on `device`.

    Every epoch shows every picture once (with `mirror`, once as it is and once mirrored) in an order drawn from
    `seed` and the epoch's number; but `held_out` of them, chosen by the seed, are never shown. Pictures are kept
    on the device once read, if all of them fit in `cache_bytes`. If not, they are read again each time, in this
    process's threads or, in `stream`, by `workers` processes (None: by need). `window` shuffles within so many
    shards at a time (0: within the whole set), for disks that are slow at reading here and there.
    Raises ArchiveError if `resolution` is above the set's, ConfigError.
    """

    def __init__(
        self,
        data: PictureSet,
        *,
        resolution: int,
        seed: int,
        mirror: bool = False,
        held_out: int = 0,
        workers: int | None = 0,
        window: int = 0,
        device: torch.device = CPU,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        side = data.resolution
        if resolution < 1:
            raise ConfigError(f"resolution {resolution} is below 1")
        if workers is not None and workers < 0:
            raise ConfigError(f"{workers} workers are below 0; give 0 to read in this process")
        if resolution > side:
            problem = (
                f"holds pictures of {side} px, {resolution} px are asked for; prepare it with --res {resolution}"
            )
            raise ArchiveError(data.path, problem)
        self.data = data
        self.resolution = resolution
        self.device = torch.empty(0, device=device).device  # with its number, as threads each have their default
        shards = None if data.shard_of is None else torch.from_numpy(data.shard_of).long()
        self.order = Order(len(data), seed=seed, mirror=mirror, held_out=held_out, shards=shards, window=window)
        self.reader = Reader(data, resolution)
        self.memory = Cache(self.reader, self.device) if self.reader.set_bytes <= cache_bytes else None
        self.workers = 0
        if self.memory is None:
            self.workers = min(MOST_WORKERS, (os.cpu_count() or 1) - 1) if workers is None else workers
        self._classes = None if data.labels is None else torch.from_numpy(data.labels)

    def __len__(self) -> int:
        """Return how many pictures the stream shows: all that are not held out."""
        return len(self.order.kept)

    def batch(self, position: int, size: int) -> Pictures:
        """Return the pictures number `position` to `position + size - 1` of the stream, and their labels.

        Each is the same to the last bit however the stream is cut. Raises ArchiveError, FileError.
        """
        return self.shown(self.order.places(position, size))

    def held_out(self, count: int) -> Pictures:
        """Return the first `count` of the pictures that the stream never shows. Raises ConfigError."""
        apart = self.order.apart
        if not 0 <= count <= len(apart):
            raise ConfigError(f"{count} held-out pictures are asked for, {len(apart)} are held out")
        return self.shown(apart[:count])

    def labels(self, rng: torch.Generator, size: int) -> Tensor | None:
        """Return int64 [B] labels of uniformly random pictures of the stream, so that fakes follow the data.

        They are on the CPU; None: unlabelled.
        """
        if self._classes is None:
            return None
        return self._classes[self.order.kept[torch.randint(len(self), (size,), generator=rng)]]

    def stream(
        self, position: int, *, batch: int, micro_batch: int, ranks: Ranks = ALONE
    ) -> Generator[Pictures, None, None]:
        """Yield this rank's part of each batch from `position` on, without end, read ahead in a thread.

        Of each micro-batch in its turn the rank has its share, and these follow one another. Close the iterator
        (`contextlib.closing`) to end what reads ahead. Raises ArchiveError, FileError, PolyinrError.
        """
        if micro_batch < 1 or batch < 1 or batch % micro_batch:
            raise ConfigError(f"micro-batch {micro_batch} does not divide the batch of {batch}")
        own = ranks.rows(batch, micro_batch)
        places = (self.order.places(start, batch)[own] for start in counted(position, batch))
        return ahead(self.read_on(places), depth=AHEAD)

    def read_on(self, places: Iterator[Tensor]) -> Generator[Pictures, None, None]:
        """Yield the pictures at each of the stretches of places."""
        if not self.workers:
            for stretch in places:
                yield self.shown(stretch)
            return
        shown, asked = tee(places)
        items = ((stretch % len(self.data)).tolist() for stretch in asked)
        with closing(read_by_workers(self.reader, items, workers=self.workers)) as batches:
            for stretch, values in zip(shown, batches, strict=True):
                yield self.finished(values, stretch)

    def shown(self, places: Tensor) -> Pictures:
        """Return the pictures at these places. Raises ArchiveError, FileError."""
        items = places % len(self.data)
        values = self.memory.read(items) if self.memory else self.reader.read(items.tolist())
        return self.finished(values, places)

    def finished(self, values: Tensor, places: Tensor) -> Pictures:
        """Bring what was read to the device, in [-1, 1], mirrored where the place says so, with its labels."""
        pictures = normalised(values.to(self.device))
        flipped = (places >= len(self.data)).to(self.device)
        pictures = torch.where(flipped[:, None, None, None], pictures.flip(3), pictures)
        if self._classes is None:
            return pictures, None
        return pictures, self._classes[places % len(self.data)].to(self.device)
