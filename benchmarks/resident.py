"""How much memory work takes at its peak, by the resident set of this process (Linux)."""

import ctypes
import resource
import sys
import threading
import time
from pathlib import Path

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
