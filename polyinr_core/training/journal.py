"""The journal: every event of a run as a line of its log, as a report, and as TensorBoard's scalars."""

import math
from collections.abc import Callable
from contextlib import suppress
from numbers import Integral, Real
from typing import Any

from ..pictures.sheet import Pixels
from .event_file import EventFile
from .folder import RunFolder

Event = dict[str, Any]

GROUPS = {
    "stage": "run",
    "resolution": "run",
    "generator": "loss",
    "critic": "loss",
    "guidance": "loss",
    "fake_sign": "sign",
    "real_sign": "sign",
    "pictures_per_second": "speed",
    "resident_mib": "memory",
    "cuda_mib": "memory",
    "fake_logit": "logit",
    "real_logit": "logit",
    "held_out_logit": "logit",
    "spread": "diagnosis",
}
OTHERS = "judge"


class Journal:
    """Writes events into a run folder and reports them.

    An event is a flat dict with `kimg`, `stage`, `resolution` and its facts; numbers that are not finite become
    null. The log raises FileError when it cannot be written. TensorBoard's files, in `tensorboard/` where that
    package is installed, never do: the first trouble with them is reported as a message, and they end there.
    """

    def __init__(self, folder: RunFolder, report: Callable[[Event], None]) -> None:
        self.folder = folder
        self.report = report
        self.events: EventFile | None = None
        self.charting = True  # until it turns out that it cannot be

    def write(self, event: Event) -> None:
        """Log an event, report it and chart its numbers. Raises FileError."""
        event = {key: plain(value) for key, value in event.items()}
        self.folder.append(event)
        self.report(event)
        step = round(1000 * event["kimg"])
        values = {
            f"{GROUPS.get(key, OTHERS)}/{key}": value
            for key, value in event.items()
            if key != "kimg" and is_number(value)
        }

        def entry(events: EventFile) -> None:
            if event.get("resumed"):
                events.go_on_from(step)
            events.scalars(values, step)

        self.chart(entry)

    def picture(self, name: str, pixels: Pixels, *, seen: int) -> None:
        """Chart a picture [H, W, 3], such as a sheet of samples, after `seen` pictures."""
        self.chart(lambda events: events.picture(name, pixels, seen))

    def chart(self, entry: Callable[[EventFile], None]) -> None:
        """Make an entry in TensorBoard's file, if there can be one."""
        if not self.charting:
            return
        try:
            if self.events is None:
                self.events = EventFile(self.folder.charts)
            entry(self.events)
        except ModuleNotFoundError:  # not installed: no charts
            self.charting = False
        except Exception as error:  # whatever it is, the training is worth more than its charts
            self.charting = False
            self.report({"message": f"no more charts in {self.folder.charts}: {error}"})

    def close(self) -> None:
        """Close TensorBoard's file."""
        self.charting = False
        if self.events is not None:
            with suppress(OSError):
                self.events.close()


def plain(value: Any) -> Any:
    """Return a number of any library as Python's own, None if it is not finite; anything else as it is."""
    if isinstance(value, bool | Integral):
        return value if isinstance(value, bool) else int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return value


def is_number(value: Any) -> bool:
    """Say whether a value can be drawn as a point."""
    return isinstance(value, int | float) and not isinstance(value, bool)
