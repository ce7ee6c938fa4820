"""Work in a process of its own, with glibc's heap as people have it or kept."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
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


def apart(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
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
