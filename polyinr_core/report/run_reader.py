"""Read a run folder: its configuration, its log with resumed and damaged parts, its grids, models and results."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from polyinr_core.errors import ConfigError, FileError
from polyinr_core.evaluation.results import Result, read_result
from polyinr_core.runtime.atomic_io import PathLike, read_bytes
from polyinr_core.runtime.strict_json import (
    FORMAT,
    JsonError,
    is_number,
    is_whole,
    parse_json,
    to_unicode,
    upgrade,
    upgrade_event,
)
from polyinr_core.training.config import Stage, parse_stages
from polyinr_core.training.hooks import BEST
from polyinr_core.training.run_dir import RunFolder

MAX_KIMG = 1e12  # of all stages together
MAX_VALUE = 1e30  # that an axis can show
MAX_INTEGER = 2**31 - 1  # of a stage, a resolution

Event = dict[str, Any]


@dataclass(frozen=True)
class StageSpan:
    """The trained part of a stage: its index, its resolution, and its first and last kimg of the run."""

    stage: int
    resolution: int
    start: float
    end: float


@dataclass(frozen=True)
class Series:
    """The values of one log key over kimg."""

    kimg: tuple[float, ...]
    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class RunLog:
    """The events of a run by kimg.

    Attributes:
        damaged: the number of lines that are not events, which are ignored.
        undone: the number of events of iterations that were lost and repeated, which are ignored.
    """

    events: tuple[Event, ...]
    damaged: int = 0
    undone: int = 0

    @property
    def kimg(self) -> float:
        """The position of the last event."""
        return float(self.events[-1]["kimg"])

    @property
    def resumed(self) -> tuple[float, ...]:
        """Where the run was resumed, in kimg."""
        return tuple(event["kimg"] for event in self.events if event.get("resumed"))

    @property
    def warnings(self) -> tuple[tuple[float, str], ...]:
        """The warnings of the run, each with its kimg."""
        return tuple((event["kimg"], str(event["warning"])) for event in self.events if event.get("warning"))

    @property
    def spans(self) -> tuple[StageSpan, ...]:
        """The trained parts of the stages; each begins where the one before ended."""
        staged = [event for event in self.events if is_whole(event.get("stage"), high=MAX_INTEGER)]
        spans: list[StageSpan] = []
        for stage, group in groupby(staged, key=lambda event: event["stage"]):
            events = list(group)
            known = [event["resolution"] for event in events if is_whole(event.get("resolution"), high=MAX_INTEGER)]
            start = spans[-1].end if spans else events[0]["kimg"]
            spans.append(StageSpan(stage, known[0] if known else 0, start, events[-1]["kimg"]))
        return tuple(spans)

    @property
    def names(self) -> tuple[str, ...]:
        """The log keys with numbers, in the order of their first event."""
        return tuple(dict.fromkeys(name for event in self.events for name in finite_numbers(event)))

    def series(self, name: str) -> Series:
        """Return the finite values of a log key; of two at one kimg the later."""
        values = {event["kimg"]: finite_numbers(event)[name] for event in self.events if name in finite_numbers(event)}
        return Series(tuple(values), tuple(values.values()))


def read_log(path: PathLike) -> RunLog:
    """Read a run's log, which may be growing. Raises FileError, also for a log without events.

    A run that resumes from a state older than its last event repeats some iterations; their first events are
    ignored.
    """
    path = Path(path)
    events: list[Event] = []
    damaged = undone = 0
    *lines, last = read_bytes(path).split(b"\n")
    for line in [*lines, last]:
        if not line.strip():
            continue
        event = parse_event(line)
        if event is None:
            damaged += line is not last  # which may be incomplete
            continue
        while events and events[-1]["kimg"] > event["kimg"]:
            events.pop()
            undone += 1
        events.append(event)
    if not events:
        hint = f" ({damaged} damaged lines)" if damaged else ""
        raise FileError(path, f"holds no events{hint}; wait until the run has logged one")
    return RunLog(tuple(events), damaged=damaged, undone=undone)


def parse_event(line: bytes) -> Event | None:
    """Return the event in a line, None if there is none."""
    try:
        event = parse_json(line, finite=False)
    except JsonError:
        return None
    if not isinstance(event, dict) or not 0 <= finite_numbers(event).get("kimg", -1.0) <= MAX_KIMG:
        return None
    return upgrade_event(event) | {"kimg": float(event["kimg"])}


def finite_numbers(event: Event) -> dict[str, float]:
    """Return the finite numbers of an event."""
    return {name: float(value) for name, value in event.items() if is_number(value) and abs(value) < MAX_VALUE}


@dataclass(frozen=True)
class StoredRun:
    """A run read from its folder; `stages` is empty if the configuration has no valid ones."""

    folder: RunFolder
    config: dict[str, Any]
    data: dict[str, Any]
    stages: tuple[Stage, ...]
    log: RunLog

    @property
    def name(self) -> str:
        return to_unicode(self.folder.path.absolute().name)

    @property
    def grids(self) -> tuple[tuple[float, Path], ...]:
        """The sample grids, each with its kimg, the oldest first."""
        found = {path: images_seen_at(path) for path in self.folder.samples.glob("fakes-*.png")}
        return tuple(sorted((images / 1000, path) for path, images in found.items() if images is not None))

    @property
    def reals(self) -> Path | None:
        """The grid of real images, None if there is none."""
        path = self.folder.sample("reals")
        return path if path.is_file() else None

    @property
    def best(self) -> Path | None:
        """The checkpoint of the best measurement, None if no trained model was measured yet."""
        return best if (best := self.folder.checkpoints / BEST).is_file() else None

    @property
    def latest(self) -> Path | None:
        """The last checkpoint, None if there is none yet."""
        numbered = [path for path in self.folder.checkpoints.glob("*.safetensors") if path.stem.isdecimal()]
        return max(numbered, key=lambda path: int(path.stem), default=None)

    @property
    def model(self) -> Path | None:
        """The run's best checkpoint, else the latest, None if there is none yet."""
        return self.best or self.latest

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the run computes, by its configuration."""
        named = self.config.get("metrics")
        return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()

    @property
    def measured(self) -> tuple[str, list[tuple[float, float]]] | None:
        """The watched metric, and the kimg and value of its latest and, of two or more, its best measurement.

        Those of the last stage count, without that of the untrained model; None if there is none.
        """
        if not self.metrics or not self.log.spans:
            return None
        name, start = self.metrics[0], self.log.spans[-1].start
        series = self.log.series(name)
        pairs = [pair for pair in zip(series.kimg, series.values, strict=True) if pair[0] > start]
        if not pairs:
            return None
        best = [min(pairs, key=lambda pair: pair[1])] if len(pairs) > 1 else []
        return name, [pairs[-1], *best]

    def results(self, *, exclude: Sequence[Path] = ()) -> tuple[Result, ...]:
        """Return the results of `polyinr evaluate` in the folder, except some; other .json files are ignored."""
        excluded = {path.resolve() for path in exclude}
        results = []
        for path in sorted(self.folder.path.glob("*.json")):
            if path.resolve() not in excluded:
                with suppress(FileError):
                    results.append(read_result(path))
        return tuple(results)


def read_run(path: PathLike) -> StoredRun:
    """Read a run folder. Raises FileError for another folder and for a damaged one."""
    path = Path(path)
    folder = RunFolder(path)
    if not path.is_dir():
        raise FileError(path, "is a file, not a run folder" if path.exists() else "no such folder")
    if not folder.config.is_file():
        raise FileError(path, f"is not a run folder: it has no {folder.config.name}; `polyinr train` makes one")
    try:
        stored = upgrade(parse_json(read_bytes(folder.config)))
    except JsonError as error:
        raise FileError(folder.config, f"is damaged: {error}") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise FileError(folder.config, f"is not a configuration of format {FORMAT}")
    config, data = stored.get("training"), stored.get("data")
    if not isinstance(config, dict) or not isinstance(data, dict):
        raise FileError(folder.config, "is damaged: its training or its data is missing")
    stages: tuple[Stage, ...] = ()
    with suppress(ConfigError):  # damaged ones are not shown
        stages = parse_stages(str(config.get("stages")))
    return StoredRun(folder, config, data, stages, read_log(folder.log))


def describe_run(path: PathLike) -> dict[str, Any]:
    """Return what `polyinr info` prints of a run folder. Raises FileError."""
    run = read_run(path)
    last, measured = run.log.events[-1], run.measured
    stages = [f"{stage.resolution} px for {stage.kimg:g} kimg" for stage in run.stages]
    images = run.log.series("img_per_sec")
    pairs = zip(("latest", "best"), [] if measured is None else measured[1], strict=False)
    values = [f"{name} {value:.5g} at {kimg:g} kimg" for name, (kimg, value) in pairs]
    return {
        "kind": "run",
        "data": run.data,
        "stages": stages,
        "kimg": run.log.kimg,
        "planned_kimg": sum(stage.kimg for stage in run.stages),
        "stage": f"{last.get('stage', 0) + 1} of {len(stages)}, {last.get('resolution')} px",
        "last_event": last.get("time"),
        "images_per_second": images.values[-1] if images else None,
        "metric": None if measured is None else f"{measured[0]} {', '.join(values)}",
        "latest_checkpoint": None if run.latest is None else str(run.latest),
        "best_checkpoint": None if run.best is None else str(run.best),
        "resumed_at": list(run.log.resumed),
        "warnings": [warning for _, warning in run.log.warnings],
        "command": shlex.join(["polyinr", "sample", "-m", str(path), "--seeds", "0-7", "-o", "images/"]),
    }


def images_seen_at(path: Path) -> int | None:
    """Return the number of training images in the name of a sample grid, None for another name."""
    digits = path.stem.removeprefix("fakes-")
    return int(digits) if digits.isdecimal() and len(digits) <= 18 else None
