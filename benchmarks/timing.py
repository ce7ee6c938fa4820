"""Timing: several pieces of work in turns on a CPU, so that a busy machine slows all alike, or by a GPU's events."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

Work = Callable[[], object]
MAX_SECONDS = 3.0  # of a measurement on a device, but for three runs at least


@dataclass
class Times:
    """The seconds that each turn of each piece of work took: by the clock, and of this process's processors."""

    clock: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, work: Work) -> None:
        """Do a piece of work once and note its times."""
        start, own = time.perf_counter(), time.process_time()
        work()
        self.processor.setdefault(name, []).append(time.process_time() - own)
        self.clock.setdefault(name, []).append(time.perf_counter() - start)

    def seconds(self, name: str) -> float:
        """Return the median by the clock."""
        return statistics.median(self.clock[name])

    def processor_seconds(self, name: str) -> float:
        """Return the median of processor time."""
        return statistics.median(self.processor[name])

    def ratio(self, slow: str, fast: str) -> float:
        """Return how many times as long `slow` takes as `fast`: the median over turns, by the clock."""
        return _ratio(self.clock[slow], self.clock[fast])

    def processor_ratio(self, slow: str, fast: str) -> float:
        """Return the same by processor time, which other programs touch less."""
        return _ratio(self.processor[slow], self.processor[fast])


def take_turns(works: Mapping[str, Work], *, rounds: int, seconds: float = math.inf, warm_up: bool = True) -> Times:
    """Do every piece of work in each round, every other round backwards; once untimed before, to warm up.

    Stops before `rounds` where another one would not end within `seconds`, after one at least.
    """
    start = time.perf_counter()
    if warm_up:
        for work in works.values():
            work()
    times = Times()
    order = list(works)
    for turn in range(rounds):
        began = time.perf_counter()
        for name in order:
            times.add(name, works[name])
        order.reverse()
        now = time.perf_counter()
        if turn + 1 < rounds and now - start + (now - began) > seconds:
            break
    return times


def _ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


class Bench:
    """A device, how often to repeat, and when to stop."""

    def __init__(self, device: torch.device, *, seconds: float, quick: bool) -> None:
        self.device, self.quick = device, quick
        self.end = time.perf_counter() + seconds
        self.warm_up, self.repeats = (1, 1) if quick else (3, 20)

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.end - time.perf_counter())

    def within(self, seconds: float) -> "Bench":
        """Return the same with at most so many seconds from now, and never more than are left here."""
        return Bench(self.device, seconds=min(seconds, self.left), quick=self.quick)

    def __bool__(self) -> bool:
        """Say whether there is time left."""
        return time.perf_counter() < self.end

    def milliseconds(self, work: Callable[[], object]) -> float:
        """Return the median time of `work` after runs to warm up; fewer runs than `repeats` where they are long."""
        start, times = time.perf_counter(), []
        for turn in range(self.warm_up + self.repeats):
            milliseconds = self.once(work)
            if turn >= self.warm_up or time.perf_counter() - start > MAX_SECONDS:
                times.append(milliseconds)
            if len(times) > 2 and time.perf_counter() - start > MAX_SECONDS:
                break
        return statistics.median(times)

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
