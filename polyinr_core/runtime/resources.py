"""Resources of this machine: memory and disk space, refused to requests that need more, and worker processes."""

import ctypes
import logging
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from polyinr_core.errors import FileError, PolyinrError, RequestError, silence_libraries

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
R = TypeVar("R")
logger = logging.getLogger(__name__)
SPARE_BYTES = 64 * 2**20
MAX_WARNING_BYTES = 256 * 2**20  # up to which a shortage is only a warning: the system's figures are not that exact
# a control group's limit, its usage, and what of that is reclaimable; by version
VERSION_2 = ("memory.max", "memory.current", "inactive_file", "active_file", "slab_reclaimable")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of glibc's mallopt(3)

CHUNK_BYTES = 2**22  # after which a chunk of a worker process takes no further items
worker_state: dict[str, Any] = {}  # of a worker process; set by `init_worker`


def available_memory(system: Path = Path("/")) -> int | None:
    """Return the bytes that the system and the container can still allocate, None if unknown.

    Page cache that the system would give back counts as available. `system` is where /proc and /sys are.
    """
    limits = []
    try:
        for line in (system / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    for group in _control_groups(system):
        free = [_remaining(group, *names) for names in (VERSION_2, VERSION_1)]
        limits += [left for left in free if left is not None]
    return min(limits) if limits else _physical_memory()


def _control_groups(system: Path) -> list[Path]:
    """Return the control groups of this process, of either version, and all their parents."""
    root = system / "sys/fs/cgroup"
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = {root, root / "memory"}  # a container may see its own group there, under whatever name it has
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0" or "memory" in controllers.split(","):
            top = root if number == "0" else root / "memory"
            own = top / name.lstrip("/")
            found |= {own, *(group for group in own.parents if group.is_relative_to(top))}
    return sorted(found)


def _limit(group: Path, name: str) -> int | None:
    """Return the bytes that a control group may use, by the file of its version; None without a limit."""
    try:
        text = (group / name).read_text().strip()
        return None if text == "max" else int(text)
    except (OSError, ValueError):
        return None


def _remaining(group: Path, limit_name: str, used: str, *reclaimable: str) -> int | None:
    """Return the bytes that a control group leaves, given its version's file names; None without a limit."""
    if (limit := _limit(group, limit_name)) is None:
        return None
    try:
        lines = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
        spare = sum(int(value) for name, value in lines if name in reclaimable)
        return limit - max(0, int((group / used).read_text()) - spare)
    except (OSError, ValueError):
        return None


def total_memory(device: "torch.device", system: Path = Path("/")) -> int | None:
    """Return the total memory of a device in bytes, of the system what this container may use; None if unknown."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    limits = [_limit(group, names[0]) for group in _control_groups(system) for names in (VERSION_2, VERSION_1)]
    return min((limit for limit in (*limits, _physical_memory()) if limit is not None), default=None)


def working_memory(device: "torch.device") -> int | None:
    """Return the bytes that a computation may plan with: all of a GPU's, of the system what is available."""
    return total_memory(device) if device.type == "cuda" else available_memory()


def _physical_memory() -> int | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for later ones; elsewhere than on Linux with glibc, nothing changes.

    By default glibc returns blocks of more than 32 MiB to the system. The feature maps of a training iteration are such
    blocks: the kernel would map and clear them anew at each use, in two fifths of an iteration's time at 64 px.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)


def check_memory(
    needed: int, *, purpose: str, advice: str = "use a smaller size, or .npy, which is written row by row"
) -> None:
    """Raise RequestError if `needed` bytes are more than is available; only warn if they are few."""
    _check_free(needed, available_memory(), spare=SPARE_BYTES, purpose=purpose, advice=advice)


def check_gpu_memory(needed: int, device: "torch.device", *, purpose: str, advice: str) -> None:
    """Raise RequestError if `needed` bytes are more than a GPU has free."""
    import torch

    _check_free(needed, torch.cuda.mem_get_info(device)[0], spare=0, purpose=purpose, advice=advice)


def _check_free(needed: int, free: int | None, *, spare: int, purpose: str, advice: str) -> None:
    if free is None or needed + spare <= free:
        return
    shortage = f"{purpose} needs {needed / 2**30:,.1f} GiB of memory, {max(0, free) / 2**30:,.1f} are free"
    if needed > MAX_WARNING_BYTES:
        raise RequestError(f"{shortage}; {advice}")
    logger.warning("%s according to the system; continuing", shortage)


def check_disk(path: Path, needed: int) -> None:
    """Raise FileError if the disk of a path cannot hold `needed` bytes more."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        unit, name = (2**30, "GiB") if needed >= 2**30 else (2**20, "MiB")
        raise FileError(path, f"needs {needed / unit:,.2f} {name}, the disk has {free / unit:,.2f}; render less")


def in_order(work: Callable[[T], R], items: Iterable[T], *, workers: int, chunk: int) -> Generator[R, None, None]:
    """Yield `work(item)` for each item in order; `work` must be picklable: a module's function or a partial of one.

    One worker means this process; more are spawned, so nothing of this process is copied. They get `chunk` items at a
    time, fewer if these are large. Closing the iterator ends the workers, each after its current item. Raises
    PolyinrError if one dies.
    """
    if workers == 1:
        yield from map(work, items)
        return
    chunks = in_chunks(items, chunk)
    context = get_context("spawn")
    stop = context.RawValue("b", 0)  # without a lock, which a killed worker could hold for ever
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=init_worker, initargs=(stop,))
    pending: deque[Future[list[R]]] = deque()
    try:
        while True:
            for part in islice(chunks, 2 * workers - len(pending)):
                with interrupts_held():
                    pending.append(pool.submit(run_chunk, work, part))
            if not pending:
                return
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise PolyinrError("a worker process died, perhaps of too little memory; use fewer --workers") from error
    finally:
        stop.value = 1
        with interrupts_held():  # if Ctrl-C ends the join, the pool's workers stay alive
            pool.shutdown(cancel_futures=True)


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, or fewer once their bytes exceed CHUNK_BYTES."""
    chunk: list[T] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += getattr(item, "nbytes", 0) or (len(item) if isinstance(item, bytes) else 0)
        if len(chunk) == size or held >= CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def run_chunk(work: Callable[[T], R], chunk: list[T]) -> list[R]:
    """Process a chunk, unless the pool was stopped; this is what a worker process runs."""
    return [work(item) for item in chunk if not worker_state["stop"].value]


def init_worker(stop: Any) -> None:
    """Initialize a worker process, which stops once `stop` is set."""
    worker_state["stop"] = stop
    silence_libraries()
    end_with_parent()


def end_with_parent() -> None:
    """Let this worker end when its parent is killed; the pool alone would leave it waiting. Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # blocked already by `interrupts_held`, but not on Windows

    def wait() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


@contextmanager
def interrupts_held(names: Iterable[str] = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")) -> Iterator[None]:
    """Block Ctrl-C and other signals; a process started meanwhile never receives them, this one ends it.

    Windows cannot block them: there a worker ignores Ctrl-C once it has started.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in names})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
