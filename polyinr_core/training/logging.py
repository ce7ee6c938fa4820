"""How much memory this process holds."""

import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from polyinr_core.images.grid import Pixels
from polyinr_core.images.io import encode_image

from .run_dir import RunFolder

MIB = 2**20
STATM = Path("/proc/self/statm")  # Linux: sizes in pages, the resident one second


def memory_facts(device: torch.device) -> dict[str, float]:
    """Return `resident_mib` and, on a CUDA device, `cuda_mib`: the most that tensors have taken there so far.

    Where the system does not tell the resident size of the moment, its highest; where it tells none, nothing.
    """
    facts = {}
    if (resident := resident_bytes()) is not None:
        facts["resident_mib"] = round(resident / MIB, 1)
    if device.type == "cuda":
        facts["cuda_mib"] = round(torch.cuda.max_memory_allocated(device) / MIB, 1)
    return facts


def resident_bytes() -> int | None:
    """Return the bytes of this process that lie in memory, as far as the system tells."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


WIDEST = 1024  # pixels of an image in the file


class EventFile:
    """An event file in `folder`, made at the first event. Raises ImportError without the tensorboard package."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event, self.session_log, self.summary = Event, SessionLog, Summary
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}"
        self.file = (folder / name).open("ab", buffering=0)
        self.records = RecordWriter(self.file)
        self.put(step=0, file_version="brain.Event:2")

    def go_on_from(self, step: int) -> None:
        """Let TensorBoard forget what older files say after `step`: the run has gone back there."""
        self.put(step=step + 1, session_log=self.session_log(status=self.session_log.START))

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Write numbers under their tags."""
        entries = [self.summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self.put(step=step, summary=self.summary(value=entries))

    def image(self, tag: str, pixels: Pixels, step: int) -> None:
        """Write an image [H, W, 3], reduced by a whole factor if it is wider than `WIDEST`."""
        if (factor := math.ceil(pixels.shape[1] / WIDEST)) > 1:
            pixels = np.asarray(Image.fromarray(pixels).reduce(factor))
        height, width, _ = pixels.shape
        image = self.summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode_image(pixels))
        self.put(step=step, summary=self.summary(value=[self.summary.Value(tag=tag, image=image)]))

    def put(self, **content: Any) -> None:
        """Write one event."""
        self.records.write(self.event(wall_time=time.time(), **content).SerializeToString())

    def close(self) -> None:
        """Close the file."""
        self.file.close()


Event = dict[str, Any]

GROUPS = {
    "stage": "run",
    "resolution": "run",
    "loss_g": "loss",
    "loss_d": "loss",
    "guidance": "loss",
    "fake_sign": "sign",
    "real_sign": "sign",
    "img_per_sec": "speed",
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

    def image(self, name: str, pixels: Pixels, *, seen: int) -> None:
        """Chart an image [H, W, 3], such as a sheet of samples, after `seen` images."""
        self.chart(lambda events: events.image(name, pixels, seen))

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
