"""Reading ahead: a thread takes the next items of an iterator while the last ones are at work."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Generator[T, None, None], *, depth: int) -> Generator[T, None, None]:
    """Yield the items of an endless generator, up to `depth` of them made in advance, in one thread.

    What the generator raises is raised here, in its turn. Closing this closes it, within its thread.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        pending: deque[Future[T]] = deque(thread.submit(next, items) for _ in range(depth))
        try:
            while True:
                item = pending.popleft().result()
                pending.append(thread.submit(next, items))
                yield item
        finally:
            for future in pending:
                future.cancel()
            thread.submit(items.close).result()
