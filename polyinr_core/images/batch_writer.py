"""Write many images: threads encode them while the next ones are rendered, and they appear in order.

Images are renamed without a flush to the disk: a crash of the machine may lose the last ones, but two flushes per image
would take longer than rendering it.
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
MAX_BYTES = 2**24  # of an image; a larger one is encoded in the rendering thread


class Image(NamedTuple):
    """An image to write: file name, pixels [H, W, 3], which must not change any more, and metadata."""

    name: str
    pixels: NDArray
    note: Note | None


def write_images(
    folder: Path, images: Iterable[Image], *, image_bytes: int, overwrite: bool = False
) -> Generator[Path, None, None]:
    """Write images into a folder in the format of their suffixes; yield the path of each in order once it is complete.

    When the generator is closed or fails, the images that were yielded stay. `image_bytes` is the size of one image in
    memory. Raises FileError, RequestError.
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
    """Return the number of encoding threads for images of that size; 0: encode in the calling thread."""
    return min(MAX_THREADS, os.cpu_count() or 1) if image_bytes <= MAX_BYTES else 0


def in_threads(jobs: Iterable[Callable[[], T]], *, threads: int) -> Generator[T, None, None]:
    """Run jobs in threads and yield their results in order; at most one more job than threads is requested ahead.

    0 threads: run them in the calling thread. An exception of a job is raised in its turn, one of `jobs` after the
    results before it. When the generator is closed, running jobs finish and waiting ones are dropped.
    """
    if not threads:
        for job in jobs:
            yield job()
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="encoding") as pool:
        pending: deque[Future[T]] = deque()
        failure: Exception | None = None
        try:
            taken = iter(jobs)
            while failure is None:
                try:
                    pending.append(pool.submit(next(taken)))
                except StopIteration:
                    break
                except Exception as error:
                    failure = error
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
            if failure is not None:
                raise failure
        finally:
            for future in pending:
                future.cancel()
