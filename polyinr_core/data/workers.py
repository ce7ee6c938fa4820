"""Batches read by worker processes, through PyTorch's DataLoader: in order, and ended with their reader."""

import atexit
import os
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from multiprocessing import resource_tracker
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import PolyinrError, silence_libraries
from .pool import end_with_parent, interrupts_held
from .reader import Reader

Result = Tensor | PolyinrError
AHEAD = 2  # batches that each worker prepares before they are asked for


def read_by_workers(
    reader: Reader, batches: Iterator[list[int]], *, workers: int
) -> Generator[Tensor, None, None]:
    """Yield `reader.read(batch)` for each batch in order; closing this ends the processes.

    Meant for a thread other than the main one: there DataLoader would answer a worker's death by an error in the
    middle of anything. Should workers die (of too little memory, of a signal sent to all), others take up the
    work; if these die before they have read a batch, PolyinrError is raised. Raises ArchiveError, FileError.
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
                "the processes that read pictures died, of too little memory perhaps (main or /dev/shm); give "
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
