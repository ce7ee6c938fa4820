"""What was drawn lately, up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

from polyinr_core.errors import PolyinrError

K = TypeVar("K", bound=Hashable)


class Cache(Generic[K]):
    """Keeps bytes by key; what was used longest ago goes first. Any thread may use it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._kept: OrderedDict[K, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> bytes | None:
        """Return what is kept by a key, None if nothing is."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: K, data: bytes) -> None:
        """Keep bytes, unless they alone are over the limit."""
        if len(data) > self.limit:
            return
        with self._lock:
            self.size += len(data) - len(self._kept.pop(key, b""))
            self._kept[key] = data
            while self.size > self.limit:
                _, dropped = self._kept.popitem(last=False)
                self.size -= len(dropped)


MOST = 64  # orders that wait


class Busy(PolyinrError):
    """An order that newer ones have pushed out, or that came when the work was over."""


class Order(Generic[K]):
    """A drawing, and how many wait for it."""

    def __init__(self, key: K) -> None:
        self.key = key
        self.clients = 0
        self.result: Future[bytes] = Future()
        self.result.set_running_or_notify_cancel()  # who waits cannot cancel it: others may wait as well


class Worker(Generic[K]):
    """Draws keys with `draw(key, wanted)`, which should end when `wanted()` no longer holds.

    At most `most` orders wait. One more pushes out the oldest, which ends as Busy.
    """

    def __init__(self, draw: Callable[[K, Callable[[], bool]], bytes], *, most: int = MOST) -> None:
        self._draw = draw
        self._most = most
        self._waiting: OrderedDict[K, Order[K]] = OrderedDict()
        self._drawn: Order[K] | None = None
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="painter", daemon=True)
        self._thread.start()

    @contextmanager
    def order(self, key: K) -> Iterator[Future[bytes]]:
        """Order a drawing for as long as the context lasts; it is given up when nobody is left in one.

        The future ends as the drawing, as whatever `draw` raises, or as Busy.
        """
        order = self._join(key)
        try:
            yield order.result
        finally:
            self._leave(order)

    @property
    def waiting(self) -> int:
        """How many orders wait."""
        return len(self._waiting)

    def close(self) -> None:
        """Give up everything, and wait for the thread to end."""
        with self._change:
            self._closed = True
            dropped = list(self._waiting.values())
            self._waiting.clear()
            self._change.notify()
        for order in dropped:
            order.result.set_exception(Busy("the work is over"))
        self._thread.join()

    def _join(self, key: K) -> Order[K]:
        pushed_out = None
        with self._change:
            current = self._drawn
            if current is not None and current.key == key and current.clients:
                order = current
            else:
                order = self._waiting.pop(key) if key in self._waiting else Order(key)
                if self._closed:
                    order.result.set_exception(Busy("the work is over"))
                else:
                    self._waiting[key] = order  # last: the newest
            order.clients += 1
            if len(self._waiting) > self._most:
                _, pushed_out = self._waiting.popitem(last=False)
            self._change.notify()
        if pushed_out is not None:
            pushed_out.result.set_exception(Busy("newer orders came first"))
        return order

    def _leave(self, order: Order[K]) -> None:
        with self._change:
            order.clients -= 1
            if not order.clients and self._waiting.get(order.key) is order:
                del self._waiting[order.key]

    def _run(self) -> None:
        while (order := self._next()) is not None:
            try:
                drawn = self._draw(order.key, partial(self._is_wanted, order))
            except BaseException as error:
                order.result.set_exception(error)
            else:
                order.result.set_result(drawn)

    def _is_wanted(self, order: Order[K]) -> bool:
        return order.clients > 0 and not self._closed

    def _next(self) -> Order[K] | None:
        """Return the newest order as soon as there is one, None when the work is over."""
        with self._change:
            self._drawn = None
            self._change.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            _, self._drawn = self._waiting.popitem(last=True)
            return self._drawn
