"""Time work on a device by its own events, as long as there is time."""

import statistics
import time
from collections.abc import Callable

import torch


class Bench:
    """A device, how often to repeat, and when to stop."""

    def __init__(self, device: torch.device, *, seconds: float, quick: bool) -> None:
        self.device, self.quick = device, quick
        self.end = time.perf_counter() + seconds
        self.warm_up, self.repeats = (1, 1) if quick else (3, 20)

    def __bool__(self) -> bool:
        """Say whether there is time left."""
        return time.perf_counter() < self.end

    def milliseconds(self, work: Callable[[], object]) -> float:
        """Return the median time of `work` after runs to warm up."""
        for _ in range(self.warm_up):
            work()
        return statistics.median(self.once(work) for _ in range(self.repeats))

    def once(self, work: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            work()
            return 1000 * (time.perf_counter() - start)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        last.synchronize()
        return first.elapsed_time(last)

    def peak(self, work: Callable[[], object]) -> float | None:
        """Return the MiB that the device holds at most during `work`; None where it does not tell."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return round(torch.cuda.max_memory_allocated() / 2**20)
