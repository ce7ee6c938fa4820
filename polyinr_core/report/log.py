"""A run's log as it lies on disk: several starts, work that was done twice, damaged lines; numbers over kimg."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..files import PathLike, read_bytes
from ..strict_json import JsonError, is_number, is_whole, parse_json

MOST_KIMG = 1e12  # of all stages together
LARGEST = 1e30  # what an axis can show
MOST_WHOLE = 2**31 - 1  # of a stage, a resolution

Event = dict[str, Any]


@dataclass(frozen=True)
class Span:
    """A stage as far as it was trained: its number, resolution, and from which kimg to which of the run."""

    stage: int
    resolution: int
    start: float
    end: float


@dataclass(frozen=True)
class Points:
    """The values of one name over kimg, both in the log's order."""

    kimg: tuple[float, ...]
    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Log:
    """The events of a run in the order of their kimg, and what was not taken of its log.

    `undone` events told of work that a stop lost and the next start did again; `damaged` lines are none.
    """

    events: tuple[Event, ...]
    damaged: int = 0
    undone: int = 0

    @property
    def seen(self) -> float:
        """How far the run has come, in kimg."""
        return float(self.events[-1]["kimg"])

    @property
    def resumed(self) -> tuple[float, ...]:
        """Where the run was taken up again, in kimg."""
        return tuple(event["kimg"] for event in self.events if event.get("resumed"))

    @property
    def warnings(self) -> tuple[tuple[float, str], ...]:
        """What the run warned of, and when."""
        return tuple((event["kimg"], str(event["warning"])) for event in self.events if event.get("warning"))

    @property
    def spans(self) -> tuple[Span, ...]:
        """The stages, each from where the one before it ended."""
        staged = [event for event in self.events if is_whole(event.get("stage"), high=MOST_WHOLE)]
        spans: list[Span] = []
        for stage, events in groupby(staged, key=lambda event: event["stage"]):
            own = list(events)
            side = next(
                (event["resolution"] for event in own if is_whole(event.get("resolution"), high=MOST_WHOLE)), 0
            )
            spans.append(Span(stage, side, spans[-1].end if spans else own[0]["kimg"], own[-1]["kimg"]))
        return tuple(spans)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the log gives numbers for, in the order in which they came up."""
        return tuple(dict.fromkeys(name for event in self.events for name in numbers_of(event)))

    def points(self, name: str) -> Points:
        """Return the values of one name, without those that were not finite; of two at one kimg the later."""
        found = {event["kimg"]: numbers_of(event)[name] for event in self.events if name in numbers_of(event)}
        return Points(tuple(found), tuple(found.values()))


def read_log(path: PathLike) -> Log:
    """Read a run's log, which may be growing while it is read. Raises FileError, also where no event is in it.

    A start that goes on from a state older than the last line does some work again: what the log says of the
    first time gives way.
    """
    path = Path(path)
    events: list[Event] = []
    damaged = undone = 0
    *lines, last = read_bytes(path).split(b"\n")
    for line in [*lines, last]:
        if not line.strip():
            continue
        event = parsed(line)
        if event is None:
            damaged += line is not last  # which may be half-written as yet
            continue
        while events and events[-1]["kimg"] > event["kimg"]:
            events.pop()
            undone += 1
        events.append(event)
    if not events:
        hint = f" ({damaged} damaged lines)" if damaged else ""
        raise FileError(path, f"holds no event of a run{hint}; wait until it has logged one")
    return Log(tuple(events), damaged=damaged, undone=undone)


def parsed(line: bytes) -> Event | None:
    """Return the event of a line, None if it is none."""
    try:
        event = parse_json(line, finite=False)
    except JsonError:
        return None
    if not isinstance(event, dict) or not 0 <= numbers_of(event).get("kimg", -1.0) <= MOST_KIMG:
        return None
    return event | {"kimg": float(event["kimg"])}


def numbers_of(event: Event) -> dict[str, float]:
    """Return what of an event can be drawn: its finite numbers."""
    return {name: float(value) for name, value in event.items() if is_number(value) and abs(value) < LARGEST}
