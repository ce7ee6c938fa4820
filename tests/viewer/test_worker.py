"""The one thread: newest first, each drawing once for all who wait, none for nobody, a bound on what waits."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack

import pytest

from polyinr_core.viewer.worker import QueueFull, RenderWorker

PATIENCE = 10.0


class Brush:
    """Draws a key as its name, each time as soon as it is let; the order of what it began is kept."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.at_work = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def __call__(self, key: str, is_wanted: Callable[[], bool]) -> bytes:
        self.begun.append(key)
        self.at_work.release()
        assert self.let.acquire(timeout=PATIENCE)
        if not is_wanted():
            self.cancelled.append(key)
            raise ValueError("given up")
        return key.encode()


@pytest.fixture
def brush() -> Brush:
    return Brush()


@pytest.fixture
def worker(brush: Brush) -> Iterator[RenderWorker[str]]:
    worker = RenderWorker(brush, max_waiting=3)
    yield worker
    brush.let.release(100)
    worker.close()


@pytest.fixture
def begun(brush: Brush, worker: RenderWorker[str]) -> Iterator[Future[bytes]]:
    """An order "first" that is being drawn."""
    with worker.request("first") as order:
        assert brush.at_work.acquire(timeout=PATIENCE)
        yield order


def test_the_newest_order_is_drawn_first(brush: Brush, worker: RenderWorker[str], begun: Future[bytes]) -> None:
    with worker.request("a") as a, worker.request("b") as b, worker.request("c") as c:
        brush.let.release(4)
        assert [order.result(PATIENCE) for order in (a, b, c, begun)] == [b"a", b"b", b"c", b"first"]
    assert brush.begun == ["first", "c", "b", "a"]


def test_two_who_want_the_same_wait_for_one_drawing(
    brush: Brush, worker: RenderWorker[str], begun: Future[bytes]
) -> None:
    with worker.request("first") as second, worker.request("a") as a, worker.request("a") as again:
        assert (second, again) == (begun, a)
        brush.let.release(2)
        assert a.result(PATIENCE) == b"a"
    assert brush.begun == ["first", "a"]


def test_what_nobody_waits_for_is_not_drawn(brush: Brush, worker: RenderWorker[str], begun: Future[bytes]) -> None:
    with worker.request("kept") as kept:
        with worker.request("left"), worker.request("kept"):
            assert worker.waiting == 2
        assert worker.waiting == 1
        brush.let.release(2)
        assert kept.result(PATIENCE) == b"kept"
    assert brush.begun == ["first", "kept"]


def test_a_drawing_is_given_up_when_the_last_has_gone(brush: Brush, worker: RenderWorker[str]) -> None:
    with worker.request("a") as order:
        assert brush.at_work.acquire(timeout=PATIENCE)
    with worker.request("a") as anew:  # not the one that is being given up
        assert anew is not order
        brush.let.release(2)
        assert anew.result(PATIENCE) == b"a"
    assert (brush.begun, brush.cancelled) == (["a", "a"], ["a"])


def test_too_many_push_out_the_oldest(brush: Brush, worker: RenderWorker[str], begun: Future[bytes]) -> None:
    with ExitStack() as stack:
        orders = [stack.enter_context(worker.request(str(number))) for number in range(1000)]
        assert worker.waiting == 3
        for order in orders[:-3]:
            with pytest.raises(QueueFull, match="newer"):
                order.result(PATIENCE)
        brush.let.release(4)
        assert [order.result(PATIENCE) for order in orders[-3:]] == [b"997", b"998", b"999"]


def test_a_failure_is_handed_on_and_the_work_goes_on(brush: Brush) -> None:
    def draw(key: str, is_wanted: Callable[[], bool]) -> bytes:
        if key == "bad":
            raise ArithmeticError("no numbers")
        return b"good"

    worker = RenderWorker(draw)
    with worker.request("bad") as bad, pytest.raises(ArithmeticError):
        bad.result(PATIENCE)
    with worker.request("good") as good:
        assert good.result(PATIENCE) == b"good"
    worker.close()


def test_the_end_frees_all_who_wait(brush: Brush) -> None:
    worker = RenderWorker(brush)
    with worker.request("first") as first:
        assert brush.at_work.acquire(timeout=PATIENCE)
        with worker.request("a") as waiting:
            closing = threading.Thread(target=worker.close)
            closing.start()
            with pytest.raises(QueueFull, match="shutting down"):
                waiting.result(PATIENCE)
            brush.let.release()
            closing.join(PATIENCE)
            assert not closing.is_alive()
            assert first.done()
            with worker.request("b") as late, pytest.raises(QueueFull):
                late.result(PATIENCE)
    assert brush.begun == ["first"]
