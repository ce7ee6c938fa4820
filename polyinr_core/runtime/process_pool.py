"""Work on many items in several processes: results in order, never more than a few items in flight."""

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
CHUNK_BYTES = 2**22  # that a message to a worker holds, and an item more
told: dict[str, Any] = {}  # a worker process, by the one that started it


def in_order(work: Callable[[T], R], items: Iterable[T], *, workers: int, chunk: int) -> Generator[R, None, None]:
    """Yield `work(item)` for each item in order; `work` must be a module's function or a partial of one.

    One worker means this process; more are started afresh, so nothing of this one is copied. They get `chunk`
    items at a time, fewer of large ones: a worker that has done its part waits until this process has time for
    it. Closing the iterator ends them, each after its item. Raises PolyinrError if one dies.
    """
    if workers == 1:
        yield from map(work, items)
        return
    chunks = in_chunks(items, chunk)
    context = get_context("spawn")
    stop = context.RawValue("b", 0)  # without a lock, which a worker that is killed could take along
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=begin, initargs=(stop,))
    pending: deque[Future[list[R]]] = deque()
    try:
        while True:
            for part in islice(chunks, 2 * workers - len(pending)):
                with interrupts_held():
                    pending.append(pool.submit(work_on, work, part))
            if not pending:
                return
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise PolyinrError("a worker process died, of too little memory perhaps; give fewer --workers") from error
    finally:
        stop.value = 1
        with interrupts_held():  # a join that Ctrl-C ends takes the pool's thread for done, and its workers stay
            pool.shutdown(cancel_futures=True)


def in_chunks(items: Iterable[T], most: int) -> Iterator[list[T]]:
    """Yield the items in lists of `most`, or fewer once bytes or arrays among them come to CHUNK_BYTES."""
    chunk: list[T] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += getattr(item, "nbytes", 0) or (len(item) if isinstance(item, bytes) else 0)
        if len(chunk) == most or held >= CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def work_on(work: Callable[[T], R], chunk: list[T]) -> list[R]:
    """Do a chunk of work, unless nobody wants it any more; this is what a worker process runs."""
    return [work(item) for item in chunk if not told["stop"].value]


def begin(stop: Any) -> None:
    """Prepare a worker process, which is to stop once `stop` is set."""
    told["stop"] = stop
    silence_libraries()
    end_with_parent()


def end_with_parent() -> None:
    """Let this worker end when the process that started it is killed; the pool alone would leave it waiting."""

    def wait() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C and its like back until afterwards: a process started meanwhile never sees them; we end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
