"""Reading ahead: a thread takes the next items of an iterator while the last ones are at work."""

import atexit
import os
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain, tee
from itertools import count as counted
from multiprocessing import resource_tracker
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from polyinr_core.errors import ConfigError, DatasetError, PolyinrError, silence_libraries
from polyinr_core.runtime.distributed import ALONE, CPU, Ranks
from polyinr_core.runtime.process_pool import end_with_parent, interrupts_held

from .dataset import ImageSet
from .resample import area_average, area_weights, normalized
from .sampler import Order

T = TypeVar("T")


def ahead(items: Generator[T, None, None], *, depth: int) -> Generator[T, None, None]:
    """Yield the items of a generator, none of them None, up to `depth` of them made in advance, in one thread.

    What the generator raises is raised here, in its turn. Closing this closes it, within its thread.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        pending: deque[Future[T | None]] = deque(thread.submit(next, items, None) for _ in range(depth))
        try:
            while (item := pending.popleft().result()) is not None:
                pending.append(thread.submit(next, items, None))
                yield item
        finally:
            for future in pending:
                future.cancel()
            thread.submit(items.close).result()


THREADS = 16


class Reader:
    """Reads items at `resolution`: uint8 where it is the set's own, else float32 area averages in [-1, 1]."""

    def __init__(self, data: ImageSet, resolution: int) -> None:
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
        """Return [B, 3, r, r]; Pillow lets go of Python's lock while it decodes. Raises DatasetError."""
        if threads == 1 or len(items) < 2:
            return torch.stack([self.image(item) for item in items])
        with ThreadPoolExecutor(min(len(items), threads)) as pool:
            return torch.stack(list(pool.map(self.image, items)))

    def image(self, item: int) -> Tensor:
        """Return one item, [3, r, r]. Raises DatasetError, FileError."""
        pixels = torch.from_numpy(self.data.read(item)).permute(2, 0, 1)
        return pixels if self.weights is None else area_average(pixels, self.weights)


class Cache:
    """What the reader reads, [N, 3, r, r] on `device`, filled as images are asked for, from any thread."""

    def __init__(self, reader: Reader, device: torch.device) -> None:
        self.reader = reader
        self.device = device
        self.values: Tensor | None = None  # made at the first reading: a feed may be made only to be asked
        self.held = torch.zeros(len(reader.data), dtype=torch.bool)
        self.lock = Lock()

    def read(self, items: Tensor) -> Tensor:
        """Return [B, 3, r, r] on the device, decoding only what is not held yet. Raises DatasetError."""
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


Result = Tensor | PolyinrError


def read_by_workers(reader: Reader, batches: Iterator[list[int]], *, workers: int) -> Generator[Tensor, None, None]:
    """Yield `reader.read(batch)` for each batch in order; closing this ends the processes.

    Meant for a thread other than the main one: there DataLoader would answer a worker's death by an error in the
    middle of anything. Should workers die (of too little memory, of a signal sent to all), others take up the
    work; if these die before they have read a batch, PolyinrError is raised. Raises DatasetError, FileError.
    """
    while True:
        asked: deque[list[int]] = deque()  # and not yet here
        loader = start(reader, noted(batches, asked), workers=workers)
        is_first = True
        try:
            for result in loader:
                if isinstance(result, PolyinrError):
                    raise result
                asked.popleft()
                is_first = False
                yield result
            return
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            # the last three: a batch whose worker died before it could hand over its memory
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
        finally:
            del loader  # the last mention of it: this ends its processes
        if is_first:
            raise PolyinrError(
                "the processes that read images died, of too little memory perhaps (main or /dev/shm); give "
                "fewer --workers"
            )
        batches = chain(asked, batches)


def noted(batches: Iterable[list[int]], asked: deque[list[int]]) -> Iterator[list[int]]:
    """Yield the batches, noting each."""
    for batch in batches:
        asked.append(batch)
        yield batch


def start(reader: Reader, batches: Iterable[list[int]], *, workers: int) -> Iterator[Result]:
    """Start workers, afresh, so that nothing of this process is copied; Ctrl-C does not reach them."""
    # how many there are is the caller's choice; set for good, as a passing change would touch other threads
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    loader: DataLoader[Result] = DataLoader(
        Work(reader),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=as_it_is,
        multiprocessing_context="spawn",
        prefetch_factor=AHEAD,
        worker_init_fn=begin,
        generator=torch.Generator(),  # or it would draw from the global one
    )
    resource_tracker.ensure_running()  # begun below, it would let interrupts through to what comes after it
    with interrupts_held():
        return iter(loader)


class Work(Dataset[Result]):
    """What a worker does."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getitems__(self, items: list[int]) -> Result:
        """Return a batch, or why there is none: raised here, it would arrive as another error."""
        try:
            return self.reader.read(items, threads=1)
        except PolyinrError as error:
            return error


def as_it_is(result: Any) -> Any:
    """Return a batch as it was read."""
    return result


def begin(worker: int) -> None:
    """Begin a worker's life, and see to its end.

    It ends before Python takes itself down: a thread of the queue that is just sending a batch would abort then,
    with a word on stderr.
    """
    silence_libraries()
    end_with_parent()
    atexit.register(os._exit, 0)


CACHE_BYTES = 2**30
AHEAD = 2  # iterations
MAX_WORKERS = 4  # that are started where their number is left to us

Images = tuple[Tensor, Tensor | None]  # float32 [B, 3, r, r] in [-1, 1], labels int64 [B] (None: unlabeled)


class Feed:
    """Batches from an image set at `resolution`, by exact area averaging from the set's own, on `device`.

    Every epoch shows every image once (with `mirror`, once as it is and once mirrored) in an order drawn from
    `seed` and the epoch's number; but `held_out` of them, chosen by the seed, are never shown. Images are kept
    on the device once read, if all of them fit in `cache_bytes`. If not, they are read again each time, in this
    process's threads or, in `stream`, by `workers` processes (None: by need). `window` shuffles within so many
    shards at a time (0: within the whole set), for disks that are slow at reading here and there.
    Raises DatasetError if `resolution` is above the set's, ConfigError.
    """

    def __init__(
        self,
        data: ImageSet,
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
            problem = f"holds images of {side} px, {resolution} px are asked for; prepare it with --res {resolution}"
            raise DatasetError(data.path, problem)
        self.data = data
        self.resolution = resolution
        self.device = torch.empty(0, device=device).device  # with its number, as threads each have their default
        shards = None if data.shard_of is None else torch.from_numpy(data.shard_of).long()
        self.order = Order(len(data), seed=seed, mirror=mirror, held_out=held_out, shards=shards, window=window)
        self.reader = Reader(data, resolution)
        self.memory = Cache(self.reader, self.device) if self.reader.set_bytes <= cache_bytes else None
        self.workers = 0
        if self.memory is None:
            self.workers = min(MAX_WORKERS, (os.cpu_count() or 1) - 1) if workers is None else workers
        self._classes = None if data.labels is None else torch.from_numpy(data.labels)

    def __len__(self) -> int:
        """Return how many images the stream shows: all that are not held out."""
        return len(self.order.kept)

    def batch(self, position: int, size: int) -> Images:
        """Return the images number `position` to `position + size - 1` of the stream, and their labels.

        Each is the same to the last bit however the stream is cut. Raises DatasetError, FileError.
        """
        return self.shown(self.order.places(position, size))

    def held_out(self, count: int) -> Images:
        """Return the first `count` of the images that the stream never shows. Raises ConfigError."""
        apart = self.order.apart
        if not 0 <= count <= len(apart):
            raise ConfigError(f"{count} held-out images are asked for, {len(apart)} are held out")
        return self.shown(apart[:count])

    def labels(self, rng: torch.Generator, size: int) -> Tensor | None:
        """Return int64 [B] labels of uniformly random images of the stream, so that fakes follow the data.

        They are on the CPU; None: unlabeled.
        """
        if self._classes is None:
            return None
        return self._classes[self.order.kept[torch.randint(len(self), (size,), generator=rng)]]

    def stream(
        self, position: int, *, batch: int, micro_batch: int, ranks: Ranks = ALONE
    ) -> Generator[Images, None, None]:
        """Yield this rank's part of each batch from `position` on, without end, read ahead in a thread.

        Of each micro-batch in its turn the rank has its share, and these follow one another. Close the iterator
        (`contextlib.closing`) to end what reads ahead. Raises DatasetError, FileError, PolyinrError.
        """
        if micro_batch < 1 or batch < 1 or batch % micro_batch:
            raise ConfigError(f"micro-batch {micro_batch} does not divide the batch of {batch}")
        own = ranks.rows(batch, micro_batch)
        places = (self.order.places(start, batch)[own] for start in counted(position, batch))
        return ahead(self.read_on(places), depth=AHEAD)

    def read_on(self, places: Iterator[Tensor]) -> Generator[Images, None, None]:
        """Yield the images at each of the stretches of places."""
        if not self.workers:
            for stretch in places:
                yield self.shown(stretch)
            return
        shown, asked = tee(places)
        items = ((stretch % len(self.data)).tolist() for stretch in asked)
        with closing(read_by_workers(self.reader, items, workers=self.workers)) as batches:
            for stretch, values in zip(shown, batches, strict=True):
                yield self.finished(values, stretch)

    def shown(self, places: Tensor) -> Images:
        """Return the images at these places. Raises DatasetError, FileError."""
        items = places % len(self.data)
        values = self.memory.read(items) if self.memory else self.reader.read(items.tolist())
        return self.finished(values, places)

    def finished(self, values: Tensor, places: Tensor) -> Images:
        """Bring what was read to the device, in [-1, 1], mirrored where the place says so, with its labels."""
        images = normalized(values.to(self.device))
        flipped = (places >= len(self.data)).to(self.device)
        images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        if self._classes is None:
            return images, None
        return images, self._classes[places % len(self.data)].to(self.device)
