"""Many images at once: encoded by threads while the next ones are rendered, and put in place in their order.

They are renamed without being flushed to the disk: a crash of the machine may cost the last ones, which are drawn
again in no time, while two flushes an image would take longer than rendering it.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from numpy.typing import NDArray

from polyinr_core.runtime.atomic_io import check_place, draft_folder, explain, refuse_overwrite

from .io import Note, format_of, write_pixels

T = TypeVar("T")
MAX_THREADS = 4
MAX_BYTES = 2**24  # of an image of which several are held at a time; a larger one is encoded alone


class Image(NamedTuple):
    """An image to write: its file's name, pixels [H, W, 3] that nobody changes any more, metadata."""

    name: str
    pixels: NDArray
    note: Note | None


def write_images(
    folder: Path, images: Iterable[Image], *, image_bytes: int, overwrite: bool = False
) -> Generator[Path, None, None]:
    """Write images into a folder as their suffixes say; yield the path of each once it is in place, in order.

    An image is whole when it appears. When this is closed or fails, those that were yielded stay. `image_bytes`
    is the size of one in memory. Raises FileError, RequestError.
    """
    if not os.path.exists(folder):
        check_place(folder)
    try:
        with draft_folder(folder, "images") as drafts:

            def job(image: Image) -> Callable[[], str]:
                def encode() -> str:
                    try:
                        with (drafts / image.name).open("wb") as file:
                            write_pixels(file, image.pixels, format=format_of(Path(image.name)), note=image.note)
                    except OSError as error:
                        raise explain(folder / image.name, error) from error
                    return image.name

                return encode

            for name in in_threads(map(job, images), threads=threads_for(image_bytes)):
                refuse_overwrite(folder / name, overwrite=overwrite)
                try:
                    os.replace(drafts / name, folder / name)
                except OSError as error:
                    raise explain(folder / name, error) from error
                yield folder / name
    except OSError as error:
        raise explain(folder, error) from error


def threads_for(image_bytes: int) -> int:
    """Return how many threads encode images of that size, 0 for the one that renders them."""
    return min(MAX_THREADS, os.cpu_count() or 1) if image_bytes <= MAX_BYTES else 0


def in_threads(jobs: Iterable[Callable[[], T]], *, threads: int) -> Generator[T, None, None]:
    """Yield what the jobs return, in order; each is taken once there is a thread for it, and one more.

    Without threads they are done here. What a job raises is raised here in its turn, what `jobs` raises after
    those before it. When this is closed, jobs at work end, and those that wait are dropped.
    """
    if not threads:
        for job in jobs:
            yield job()
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="encoding") as pool:
        pending: deque[Future[T]] = deque()
        trouble: Exception | None = None
        try:
            taken = iter(jobs)
            while trouble is None:
                try:
                    pending.append(pool.submit(next(taken)))
                except StopIteration:
                    break
                except Exception as error:
                    trouble = error
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
            if trouble is not None:
                raise trouble
        finally:
            for future in pending:
                future.cancel()
