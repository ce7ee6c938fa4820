"""Process pool: map a function over many items in order, with few items in flight."""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from polyinr_core.errors import PolyinrError, silence_libraries

T = TypeVar("T")
R = TypeVar("R")
CHUNK_BYTES = 2**22  # after which a chunk takes no further items
worker_state: dict[str, Any] = {}  # of a worker process; set by `init_worker`


def in_order(work: Callable[[T], R], items: Iterable[T], *, workers: int, chunk: int) -> Generator[R, None, None]:
    """Yield `work(item)` for each item in order; `work` must be picklable: a module's function or a partial of one.

    One worker means this process; more are spawned, so nothing of this process is copied. They get `chunk` items at a
    time, fewer if these are large. Closing the iterator ends the workers, each after its current item. Raises
    PolyinrError if one dies.
    """
    if workers == 1:
        yield from map(work, items)
        return
    chunks = in_chunks(items, chunk)
    context = get_context("spawn")
    stop = context.RawValue("b", 0)  # without a lock, which a killed worker could hold for ever
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=init_worker, initargs=(stop,))
    pending: deque[Future[list[R]]] = deque()
    try:
        while True:
            for part in islice(chunks, 2 * workers - len(pending)):
                with interrupts_held():
                    pending.append(pool.submit(run_chunk, work, part))
            if not pending:
                return
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise PolyinrError("a worker process died, perhaps of too little memory; use fewer --workers") from error
    finally:
        stop.value = 1
        with interrupts_held():  # if Ctrl-C ends the join, the pool's workers stay alive
            pool.shutdown(cancel_futures=True)


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, or fewer once their bytes exceed CHUNK_BYTES."""
    chunk: list[T] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += getattr(item, "nbytes", 0) or (len(item) if isinstance(item, bytes) else 0)
        if len(chunk) == size or held >= CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def run_chunk(work: Callable[[T], R], chunk: list[T]) -> list[R]:
    """Process a chunk, unless the pool was stopped; this is what a worker process runs."""
    return [work(item) for item in chunk if not worker_state["stop"].value]


def init_worker(stop: Any) -> None:
    """Initialize a worker process, which stops once `stop` is set."""
    worker_state["stop"] = stop
    silence_libraries()
    end_with_parent()


def end_with_parent() -> None:
    """Let this worker end when its parent is killed; the pool alone would leave it waiting."""

    def wait() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Block Ctrl-C and other interrupts; a process started meanwhile never receives them, this one ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
