"""A run's log as it lies on disk: several starts, work that was done twice, damaged lines; numbers over kimg."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from polyinr_core.errors import ConfigError, FileError
from polyinr_core.evaluation.results import Result, read_result
from polyinr_core.runtime.atomic_io import PathLike, read_bytes
from polyinr_core.runtime.format1 import FORMAT, upgrade, upgrade_event
from polyinr_core.runtime.strict_json import JsonError, is_number, is_whole, parse_json, to_unicode
from polyinr_core.training.config import Stage, parse_stages
from polyinr_core.training.hooks import BEST
from polyinr_core.training.run_dir import RunFolder

MAX_KIMG = 1e12  # of all stages together
LARGEST = 1e30  # what an axis can show
MAX_WHOLE = 2**31 - 1  # of a stage, a resolution

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
        staged = [event for event in self.events if is_whole(event.get("stage"), high=MAX_WHOLE)]
        spans: list[Span] = []
        for stage, events in groupby(staged, key=lambda event: event["stage"]):
            own = list(events)
            side = next((event["resolution"] for event in own if is_whole(event.get("resolution"), high=MAX_WHOLE)), 0)
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
    if not isinstance(event, dict) or not 0 <= numbers_of(event).get("kimg", -1.0) <= MAX_KIMG:
        return None
    return upgrade_event(event) | {"kimg": float(event["kimg"])}


def numbers_of(event: Event) -> dict[str, float]:
    """Return what of an event can be drawn: its finite numbers."""
    return {name: float(value) for name, value in event.items() if is_number(value) and abs(value) < LARGEST}


@dataclass(frozen=True)
class StoredRun:
    """A run as its folder has it. `stages` are empty where the configuration names none that can be read."""

    folder: RunFolder
    config: dict[str, Any]
    data: dict[str, Any]
    stages: tuple[Stage, ...]
    log: Log

    @property
    def name(self) -> str:
        return to_unicode(self.folder.path.absolute().name)

    @property
    def sheets(self) -> tuple[tuple[float, Path], ...]:
        """The sheets of samples, each with the kimg at which it was drawn, the oldest first."""
        paths = [path for path in self.folder.samples.glob("fakes-*.png") if seen_of(path) is not None]
        return tuple(sorted(((seen_of(path) or 0) / 1000, path) for path in paths))

    @property
    def reals(self) -> Path | None:
        """The sheet of real images, if there is one."""
        path = self.folder.sample("reals")
        return path if path.is_file() else None

    @property
    def model(self) -> Path | None:
        """The run's best model, without one the newest, None where there is none as yet."""
        if (best := self.folder.checkpoints / BEST).is_file():
            return best
        numbered = [path for path in self.folder.checkpoints.glob("*.safetensors") if path.stem.isdecimal()]
        return max(numbered, key=lambda path: int(path.stem), default=None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The distances that the run was told to measure, at its last start."""
        named = self.config.get("metrics")
        return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()

    def results(self, *, but: Sequence[Path] = ()) -> tuple[Result, ...]:
        """Return what `polyinr evaluate` has left in the folder, `but` some; other .json files are left alone."""
        given = {path.resolve() for path in but}
        found = []
        for path in sorted(self.folder.path.glob("*.json")):
            with suppress(FileError):
                if path.resolve() not in given:
                    found.append(read_result(path))
        return tuple(found)


def read_run(path: PathLike) -> StoredRun:
    """Read a run folder. Raises FileError where it is none, or is damaged."""
    path = Path(path)
    folder = RunFolder(path)
    if not path.is_dir():
        raise FileError(path, "is a file, a run folder is needed" if path.exists() else "no such folder")
    if not folder.config.is_file():
        raise FileError(path, f"is no run folder: it holds no {folder.config.name}; `polyinr train` makes one")
    try:
        stored = upgrade(parse_json(read_bytes(folder.config)))
    except JsonError as error:
        raise FileError(folder.config, f"a damaged configuration: {error}") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise FileError(folder.config, f"no configuration of a run in format {FORMAT}")
    config, data = stored.get("training"), stored.get("data")
    if not isinstance(config, dict) or not isinstance(data, dict):
        raise FileError(folder.config, "a damaged configuration: its training or its data is missing")
    return StoredRun(folder, config, data, stages_of(config), read_log(folder.log))


def stages_of(config: dict[str, Any]) -> tuple[Stage, ...]:
    """Return the stages of a configuration, none where they are damaged."""
    try:
        return parse_stages(str(config.get("stages")))
    except ConfigError:
        return ()


def seen_of(sheet: Path) -> int | None:
    """Return how many images the run had seen when it drew a sheet, None for another file's name."""
    digits = sheet.stem.removeprefix("fakes-")
    return int(digits) if digits.isdecimal() and len(digits) <= 18 else None
