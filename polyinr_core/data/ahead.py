"""Reading ahead: a thread takes the next items of an iterator while the last ones are at work."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
