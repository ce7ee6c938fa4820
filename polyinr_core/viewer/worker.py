"""The thread that renders the viewer's tiles, newest request first, and the cache of rendered tiles."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

from polyinr_core.errors import PolyinrError

K = TypeVar("K", bound=Hashable)
MAX_WAITING = 64  # requests


class TileCache(Generic[K]):
    """A least-recently-used cache of at most `max_bytes` bytes. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        self._entries: OrderedDict[K, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> bytes | None:
        """Return the bytes of a key, None if they are not cached."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: K, data: bytes) -> None:
        """Cache bytes, unless they alone exceed `max_bytes`."""
        if len(data) > self.max_bytes:
            return
        with self._lock:
            self.size += len(data) - len(self._entries.pop(key, b""))
            self._entries[key] = data
            while self.size > self.max_bytes:
                _, evicted = self._entries.popitem(last=False)
                self.size -= len(evicted)


class QueueFull(PolyinrError):
    """A request was dropped in favor of newer ones, or the worker is closed."""


class RenderRequest(Generic[K]):
    """A requested tile, its result, and the number of clients that wait for it."""

    def __init__(self, key: K) -> None:
        self.key = key
        self.clients = 0
        self.result: Future[bytes] = Future()
        self.result.set_running_or_notify_cancel()  # one client cannot cancel it: others may wait as well


class RenderWorker(Generic[K]):
    """Calls `render(key, is_wanted)` in one thread; `render` should end once `is_wanted()` returns False.

    At most `max_waiting` requests wait. One more drops the oldest, whose result is QueueFull.
    """

    def __init__(self, render: Callable[[K, Callable[[], bool]], bytes], *, max_waiting: int = MAX_WAITING) -> None:
        self._render = render
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[K, RenderRequest[K]] = OrderedDict()
        self._current: RenderRequest[K] | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="render", daemon=True)
        self._thread.start()

    @contextmanager
    def request(self, key: K) -> Iterator[Future[bytes]]:
        """Request a tile for the duration of the context; the last client that leaves cancels it.

        The future holds the tile, or the exception of `render`, or QueueFull.
        """
        request = self._join(key)
        try:
            yield request.result
        finally:
            self._leave(request)

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return len(self._waiting)

    def close(self) -> None:
        """Cancel all requests, and wait for the thread to end."""
        with self._changed:
            self._closed = True
            dropped = list(self._waiting.values())
            self._waiting.clear()
            self._changed.notify()
        for request in dropped:
            request.result.set_exception(QueueFull("the server is shutting down"))
        self._thread.join()

    def _join(self, key: K) -> RenderRequest[K]:
        dropped = None
        with self._changed:
            current = self._current
            if current is not None and current.key == key and current.clients:
                request = current
            else:
                request = self._waiting.pop(key) if key in self._waiting else RenderRequest(key)
                if self._closed:
                    request.result.set_exception(QueueFull("the server is shutting down"))
                else:
                    self._waiting[key] = request  # last: the newest
            request.clients += 1
            if len(self._waiting) > self._max_waiting:
                _, dropped = self._waiting.popitem(last=False)
            self._changed.notify()
        if dropped is not None:
            dropped.result.set_exception(QueueFull("dropped in favor of newer requests"))
        return request

    def _leave(self, request: RenderRequest[K]) -> None:
        with self._changed:
            request.clients -= 1
            if not request.clients and self._waiting.get(request.key) is request:
                del self._waiting[request.key]

    def _run(self) -> None:
        while (request := self._next()) is not None:
            try:
                data = self._render(request.key, partial(self._is_wanted, request))
            except BaseException as error:
                request.result.set_exception(error)
            else:
                request.result.set_result(data)

    def _is_wanted(self, request: RenderRequest[K]) -> bool:
        return request.clients > 0 and not self._closed

    def _next(self) -> RenderRequest[K] | None:
        """Wait for a request and return the newest one, or None when the worker is closed."""
        with self._changed:
            self._current = None
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            _, self._current = self._waiting.popitem(last=True)
            return self._current
