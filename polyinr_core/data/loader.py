"""Batches for training, in an order that the seed gives: cached on the device, or read ahead by worker processes."""

import atexit
import os
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain, count, tee
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from polyinr_core.errors import ConfigError, DatasetError, PolyinrError, silence_libraries
from polyinr_core.runtime.device import to_device
from polyinr_core.runtime.distributed import CPU, SINGLE_PROCESS, DistributedContext
from polyinr_core.runtime.resources import end_with_parent, interrupts_held
from polyinr_core.runtime.rng import generator_for

from .dataset import ImageDataset
from .resample import DeviceCache, ResizedDataset, normalized

CACHE_BYTES = 2**30  # a set that needs no more is cached on the device
PREFETCH = 2  # batches
MAX_WORKERS = 4  # by default

T = TypeVar("T")
Images = tuple[Tensor, Tensor | None]  # float32 [B, 3, r, r] in [-1, 1], labels int64 [B] (None: unlabeled)
WorkerResult = Tensor | PolyinrError


class TrainLoader:
    """Batches of a dataset at `resolution`, by exact area averaging from its own, on `device`.

    The order is that of `InfiniteSampler`: a batch is a function of the seed and its position alone. A set that fits
    `cache_bytes` is decoded once and stays on the device. A larger one is decoded again each time, by `workers`
    processes.

    Args:
        data: The images.
        resolution: Of the batches, at most the dataset's.
        seed, mirror, held_out, window: As for `InfiniteSampler`.
        workers: Processes that read images for `batches`. 0: threads of this process. None: up to 4, as needed.
        device: Of the batches.
        cache_bytes: Limit of the cache.

    Raises:
        DatasetError: `resolution` is above the dataset's.
        ConfigError: Another argument is out of range.
    """

    def __init__(
        self,
        data: ImageDataset,
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
        if resolution < 1:
            raise ConfigError(f"resolution {resolution} is below 1")
        if workers is not None and workers < 0:
            raise ConfigError(f"{workers} workers are below 0; give 0 to read in this process")
        if resolution > data.resolution:
            raise DatasetError(
                data.path,
                f"holds images of {data.resolution} px, {resolution} px are asked for; train it with "
                f"--stages {data.resolution}:200, or prepare it with --res {resolution}",
            )
        self.data = data
        self.resolution = resolution
        self.device = torch.empty(0, device=device).device  # with its index: each thread has a default of its own
        shards = None if data.shard_of is None else torch.from_numpy(data.shard_of).long()
        self.sampler = InfiniteSampler(
            len(data), seed=seed, mirror=mirror, held_out=held_out, shards=shards, window=window
        )
        self.resized = ResizedDataset(data, resolution)
        self.cache = DeviceCache(self.resized, self.device) if self.resized.total_bytes <= cache_bytes else None
        self.workers = 0
        if self.cache is None:
            self.workers = min(MAX_WORKERS, (os.cpu_count() or 1) - 1) if workers is None else workers
        self.labels = None if data.labels is None else torch.from_numpy(data.labels)

    def __len__(self) -> int:
        """Return the number of images that are trained on: all that are not held out."""
        return len(self.sampler.kept)

    def batches(
        self, position: int, *, batch: int, micro_batch: int, dist: DistributedContext = SINGLE_PROCESS
    ) -> Generator[Images, None, None]:
        """Yield this rank's part of each batch from `position` on, without end, two batches ahead, from a thread.

        A rank has its part of each micro-batch, one after the other. Close the iterator (`contextlib.closing`) to end
        its thread and processes. Raises DatasetError, FileError, PolyinrError.
        """
        if micro_batch < 1 or batch < 1 or batch % micro_batch:
            raise ConfigError(f"micro-batch {micro_batch} does not divide the batch of {batch}")
        rows = dist.local_rows(batch, micro_batch)
        indices = (self.sampler.indices(start, batch)[rows] for start in count(position, batch))
        return prefetch(self.load_all(indices), depth=PREFETCH)

    def batch(self, position: int, size: int) -> Images:
        """Return the images at `position` to `position + size - 1` of the sequence, and their labels.

        An image is bit for bit the same in any batch. Raises DatasetError, FileError.
        """
        return self.load(self.sampler.indices(position, size))

    def held_out(self, size: int) -> Images:
        """Return the first `size` of the held-out images. Raises ConfigError."""
        held_out = self.sampler.held_out
        if not 0 <= size <= len(held_out):
            raise ConfigError(f"{size} held-out images are asked for, {len(held_out)} are held out")
        return self.load(held_out[:size])

    def sample_labels(self, rng: torch.Generator, size: int) -> Tensor | None:
        """Return the labels of random images, int64 [size] on the CPU, so that fakes have the data's classes.

        None: the dataset is unlabeled.
        """
        if self.labels is None:
            return None
        return self.labels[self.sampler.kept[torch.randint(len(self), (size,), generator=rng)]]

    def load_all(self, batches: Iterator[Tensor]) -> Generator[Images, None, None]:
        """Yield the images at each batch of indices."""
        if not self.workers:
            for indices in batches:
                yield self.load(indices)
            return
        batches, ahead = tee(batches)
        items = ((indices % len(self.data)).tolist() for indices in ahead)
        with closing(read_by_workers(self.resized, items, workers=self.workers)) as pixels_of_batches:
            for indices, pixels in zip(batches, pixels_of_batches, strict=True):
                yield self.finish(pixels, indices)

    def load(self, indices: Tensor) -> Images:
        """Return the images at the indices. Raises DatasetError, FileError."""
        items = indices % len(self.data)
        pixels = self.cache.read(items) if self.cache else self.resized.read(items.tolist())
        return self.finish(pixels, indices)

    def finish(self, pixels: Tensor, indices: Tensor) -> Images:
        """Return pixels on the device, in [-1, 1], mirrored where the index says so, with their labels."""
        images = normalized(to_device(pixels, self.device))
        mirrored = to_device(indices >= len(self.data), self.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if self.labels is None:
            return images, None
        return images, to_device(self.labels[indices % len(self.data)], self.device)


class InfiniteSampler:
    """Indices of an infinite sequence of images: 0 to count - 1, plus `count` where the image is mirrored.

    Every epoch holds every image once (with `mirror`, once as it is and once mirrored), in an order drawn from the seed
    and the epoch's number. So a run resumes at a position, without any state of the sampler.

    Args:
        count: Images of the dataset.
        seed: Of the order and of the choice of held-out images.
        mirror: Show mirrored images too.
        held_out: Images, chosen by the seed alone, that are in no epoch.
        shards: The number of the file that each image lies in, int64 [count].
        window: Shuffle within so many shards at a time, 0 for the whole set: for disks with slow random access.

    Raises:
        ConfigError.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int,
        mirror: bool = False,
        held_out: int = 0,
        shards: Tensor | None = None,
        window: int = 0,
    ) -> None:
        if not 0 <= held_out < count:
            raise ConfigError(f"cannot hold out {held_out} of {count} images; hold out fewer than all, or 0")
        if window < 0:
            raise ConfigError(f"a window of {window} shards is below 0; give 0 to shuffle the whole set")
        self.count = count
        self.seed = seed
        self.held_out = torch.randperm(count, generator=generator_for(seed, "held out"))[
            :held_out
        ]  # in the order drawn
        kept = torch.ones(count, dtype=torch.bool)
        kept[self.held_out] = False
        self.kept = kept.nonzero()[:, 0]  # [K], rising
        self.epoch_indices = torch.cat([self.kept, self.kept + count]) if mirror else self.kept
        self.shards = shards if window else None
        self.window = window
        self._epochs: dict[int, Tensor] = {}

    @property
    def epoch_size(self) -> int:
        """Number of indices of an epoch."""
        return len(self.epoch_indices)

    def indices(self, position: int, size: int) -> Tensor:
        """Return int64 [size]: the indices at `position` to `position + size - 1` of the sequence."""
        pieces = []
        while size > 0:
            epoch, start = divmod(position, self.epoch_size)
            piece = self.epoch(epoch)[start : start + size]
            pieces.append(piece)
            position, size = position + len(piece), size - len(piece)
        return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int64)

    def epoch(self, number: int) -> Tensor:
        """Return an epoch's indices; the last two epochs that were asked for are cached."""
        indices = self._epochs.get(number)
        if indices is None:
            indices = self.shuffle(number)
            self._epochs = dict([*self._epochs.items(), (number, indices)][-2:])
        return indices

    def shuffle(self, epoch: int) -> Tensor:
        """Draw an epoch's order."""
        rng = generator_for(self.seed, "feed", epoch)
        shuffled = self.epoch_indices[torch.randperm(self.epoch_size, generator=rng)]
        if self.shards is None:
            return shuffled
        order = torch.randperm(int(self.shards.max()) + 1, generator=rng)  # of the shards
        windows = order[self.shards[shuffled % self.count]] // self.window
        return shuffled[windows.argsort(stable=True)]


def prefetch(items: Generator[T, None, None], *, depth: int) -> Generator[T, None, None]:
    """Yield the items of a generator, none of them None, computed up to `depth` ahead in one thread.

    What the generator raises is raised here, in its turn. Closing this closes it, within its thread.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        pending: deque[Future[T | None]] = deque(thread.submit(next, items, None) for _ in range(depth))
        try:
            while (item := pending.popleft().result()) is not None:
                pending.append(thread.submit(next, items, None))
                yield item
        finally:
            for future in pending:
                future.cancel()
            thread.submit(items.close).result()


def read_by_workers(
    resized: ResizedDataset, batches: Iterator[list[int]], *, workers: int
) -> Generator[Tensor, None, None]:
    """Yield `resized.read(batch)` for each batch in order, read by the worker processes of a torch DataLoader.

    DataLoader answers a worker's death (too little memory, a signal to the whole group) with an error raised at an
    arbitrary point of the main thread. So this runs in another thread than the main one, remembers which
    batches were requested, and restarts the workers there; the sequence stays the same, as the batches are a function
    of their indices. If new workers die before they have read a batch, PolyinrError is raised. Closing this ends the
    processes. Raises DatasetError, FileError.
    """
    while True:
        requested: deque[list[int]] = deque()  # and not yet read
        loader = start_workers(resized, record(batches, requested), workers=workers)
        is_first = True
        try:
            for result in loader:
                if isinstance(result, PolyinrError):
                    raise result
                requested.popleft()
                is_first = False
                yield result
            return
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            # the last three: a worker died before it could hand over the shared memory of its batch
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
        finally:
            del loader  # the last reference: this ends the processes
        if is_first:
            raise PolyinrError(
                "the processes that read images died, perhaps of too little memory (main memory or /dev/shm); use "
                "fewer --workers"
            )
        batches = chain(requested, batches)


def record(batches: Iterable[list[int]], requested: deque[list[int]]) -> Iterator[list[int]]:
    """Yield the batches, and append each to `requested`."""
    for batch in batches:
        requested.append(batch)
        yield batch


def start_workers(resized: ResizedDataset, batches: Iterable[list[int]], *, workers: int) -> Iterator[WorkerResult]:
    """Start workers by "spawn", so that they hold no copy of this process; Ctrl-C does not reach them."""
    # the number is the caller's choice; filtered for good, as a temporary filter would reach other threads
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    loader: DataLoader[WorkerResult] = DataLoader(
        WorkerDataset(resized),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=identity,
        multiprocessing_context="spawn",
        prefetch_factor=PREFETCH,
        worker_init_fn=init_worker,
        generator=torch.Generator(),  # or it would draw from the global one
    )
    with interrupts_held(["SIGUSR1"]):  # a scheduler sends it to all processes, and it would end this one
        resource_tracker.ensure_running()  # started below, with interrupts held, it would never receive one
    with interrupts_held():
        return iter(loader)


class WorkerDataset(Dataset[WorkerResult]):
    """Whole batches, for a worker to read."""

    def __init__(self, resized: ResizedDataset) -> None:
        self.resized = resized

    def __getitems__(self, items: list[int]) -> WorkerResult:
        """Return a batch, or the error: raised here, DataLoader would turn it into another one."""
        try:
            return self.resized.read(items, threads=1)
        except PolyinrError as error:
            return error


def identity(result: Any) -> Any:
    """Return a batch as it was read: a collate_fn that can be pickled."""
    return result


def init_worker(worker: int) -> None:
    """Prepare a worker process, and its exit.

    It exits before the interpreter shuts down: the queue's feeder thread, if it is sending a batch, would abort then
    with a message on stderr.
    """
    silence_libraries()
    end_with_parent()
    atexit.register(os._exit, 0)
