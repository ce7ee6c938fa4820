"""Tests of benchmarks/timing.py: the order of the turns, and ratios of their times."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Clock:
    """A clock that goes on when work is done, and a record of who did it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done = ""

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 2

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def work() -> None:
            self.now += seconds
            self.done += name

        return work


@pytest.fixture
def timing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import timing as module

    return module


@pytest.fixture
def clock(timing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_every_other_round_goes_backwards(timing: ModuleType, clock: Clock) -> None:
    times = timing.take_turns({"a": clock.work("a", 3), "b": clock.work("b", 1)}, rounds=3)
    assert clock.done == "ab" + "ab" + "ba" + "ab"  # the first to warm up, untimed
    assert times.clock == {"a": [3, 3, 3], "b": [1, 1, 1]}
    assert (times.seconds("a"), times.processor_seconds("a")) == (3, 1.5)
    assert times.ratio("a", "b") == times.processor_ratio("a", "b") == 3


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 1), (8, 1), (12, 2), (99, 5)])
def test_no_round_is_begun_that_would_not_end_in_time(
    timing: ModuleType, clock: Clock, seconds: float, rounds: int
) -> None:
    """A round takes four seconds, and so does the one to warm up."""
    works = {"a": clock.work("a", 3), "b": clock.work("b", 1)}
    times = timing.take_turns(works, rounds=5, seconds=seconds)
    assert len(times.clock["a"]) == rounds


def test_a_ratio_is_the_median_of_the_rounds(timing: ModuleType) -> None:
    """A machine that slows down for a round slows both."""
    times = timing.Times(clock={"a": [2, 20, 9], "b": [1, 10, 1]})
    assert times.ratio("a", "b") == 2
