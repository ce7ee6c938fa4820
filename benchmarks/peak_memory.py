"""Peak memory of work, by the resident set of this process (Linux) or of a fresh process, and glibc's allocator."""

import ctypes
import multiprocessing
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

Allocator = Literal["default", "kept"]
P = ParamSpec("P")
R = TypeVar("R")

# freed memory stays with the process; by default every large tensor is mapped, and its pages faulted, anew
KEPT_HEAP = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
MIB = 2**20
UNIT = MIB if sys.platform == "darwin" else 2**10  # of ru_maxrss, in MiB


def resident() -> int:
    """Return this process's resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """Return the most memory that this process has ever had, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT)


def available() -> int:
    """Return the bytes that a process could still take without others being swapped."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 2**10 for line in lines if line.startswith("MemAvailable"))


class Peak:
    """Watch the resident set from a thread while a block runs; `bytes` is the most it grew."""

    def __enter__(self) -> "Peak":
        release()
        self.start, self.bytes, self.running = resident(), 0, True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while self.running:
            self.bytes = max(self.bytes, resident() - self.start)
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()

    @property
    def mib(self) -> float:
        """Return the growth in MiB."""
        return round(self.bytes / MIB, 1)


def release() -> None:
    """Give back what the allocator keeps, or it would hide what the next piece of work takes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def run_in_process(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what a module's function returns in a fresh process. Raises BrokenProcessPool if that dies."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()


@contextmanager
def heap(allocator: Allocator) -> Iterator[None]:
    """Let processes that are started meanwhile have glibc's allocator so; it reads its variables at the start."""
    before = {name: os.environ.pop(name, None) for name in KEPT_HEAP}
    os.environ.update(KEPT_HEAP if allocator == "kept" else {})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
