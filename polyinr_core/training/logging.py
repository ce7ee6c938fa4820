"""The log of a run: log.jsonl, TensorBoard event files, and memory use."""

import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from polyinr_core.images.grid import Pixels
from polyinr_core.images.io import encode_image

from .run_dir import RunFolder

Event = dict[str, Any]

MIB = 2**20
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
STATM = Path("/proc/self/statm")  # Linux: sizes in pages, the resident one second
MAX_WIDTH = 1024  # pixels of an image in TensorBoard
TAGS = {  # TensorBoard's groups
    "stage": "run",
    "resolution": "run",
    "loss_g": "loss",
    "loss_d": "loss",
    "loss_guidance": "loss",
    "d_sign_fake": "sign",
    "d_sign_real": "sign",
    "d_logit_fake": "logit",
    "d_logit_real": "logit",
    "d_logit_held_out": "logit",
    "img_per_sec": "speed",
    "cpu_mem_mib": "memory",
    "gpu_mem_mib": "memory",
    "diversity": "diagnostics",
}
METRICS_TAG = "metrics"  # of all others


class Logger:
    """Writes the events of a run to log.jsonl and TensorBoard, and reports them.

    An event is a flat dict with `kimg`, `stage`, `resolution` and its facts; numbers that are not finite become null.
    FileError is raised when log.jsonl cannot be written. TensorBoard's file, written where that package is installed,
    raises nothing: its first failure is reported as a message, and ends it.
    """

    def __init__(self, folder: RunFolder, report: Callable[[Event], None]) -> None:
        self.folder = folder
        self.report = report
        self.events: TensorBoardFile | None = None
        self.charting = True  # until it fails

    def write(self, event: Event) -> None:
        """Log an event, report it, and add its numbers to TensorBoard's file. Raises FileError."""
        event = {key: plain(value) for key, value in event.items()}
        self.folder.append(event)
        self.report(event)
        step = round(1000 * event["kimg"])
        values = {
            f"{TAGS.get(key, METRICS_TAG)}/{key}": value
            for key, value in event.items()
            if key != "kimg" and is_number(value)
        }

        def entry(events: "TensorBoardFile") -> None:
            if event.get("resumed"):
                events.resume_at(step)
            events.scalars(values, step)

        self.chart(entry)

    def image(self, name: str, pixels: Pixels, *, images: int) -> None:
        """Add an image [H, W, 3], as a grid of samples after `images` images, to TensorBoard's file."""
        self.chart(lambda events: events.image(name, pixels, images))

    def chart(self, entry: Callable[["TensorBoardFile"], None]) -> None:
        """Write to TensorBoard's file, unless it has failed before."""
        if not self.charting:
            return
        try:
            if self.events is None:
                self.events = TensorBoardFile(self.folder.tensorboard)
            entry(self.events)
        except ModuleNotFoundError:  # not installed: no charts
            self.charting = False
        except Exception as error:  # no failure of TensorBoard may end the training
            self.charting = False
            self.report({"message": f"TensorBoard logging to {self.folder.tensorboard} stopped: {error}"})

    def close(self) -> None:
        """Close TensorBoard's file."""
        self.charting = False
        if self.events is not None:
            with suppress(OSError):
                self.events.close()


def plain(value: Any) -> Any:
    """Return numbers, also NumPy's, as Python's own, and None for those not finite; anything else as it is."""
    if isinstance(value, bool | Integral):
        return value if isinstance(value, bool) else int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return value


def is_number(value: Any) -> bool:
    """Return whether a value is a number, to be plotted."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class TensorBoardFile:
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

    def resume_at(self, step: int) -> None:
        """Make TensorBoard discard what earlier files hold after `step`, where the run has resumed."""
        self.put(step=step + 1, session_log=self.session_log(status=self.session_log.START))

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Write numbers under their tags."""
        entries = [self.summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self.put(step=step, summary=self.summary(value=entries))

    def image(self, tag: str, pixels: Pixels, step: int) -> None:
        """Write an image [H, W, 3], reduced by a whole factor if it is wider than `MAX_WIDTH`."""
        if (factor := math.ceil(pixels.shape[1] / MAX_WIDTH)) > 1:
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


def memory_stats(device: torch.device) -> dict[str, float]:
    """Return `cpu_mem_mib`, the resident size, and on a CUDA device `gpu_mem_mib`, the peak of allocated tensors.

    Where the system does not report the current resident size, its peak; where it reports neither, nothing.
    """
    facts = {}
    if (resident := resident_bytes()) is not None:
        facts["cpu_mem_mib"] = round(resident / MIB, 1)
    if device.type == "cuda":
        facts["gpu_mem_mib"] = round(torch.cuda.max_memory_allocated(device) / MIB, 1)
    return facts


def resident_bytes() -> int | None:
    """Return the resident bytes of this process, None where the system does not report them."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def duration(seconds: float) -> str:
    """Write a time by its two largest units: 45 s, 12 min, 5 h 12 min, 3 d 4 h."""
    left = max(0, round(seconds))
    for (unit, name), (part, part_name) in pairwise(UNITS):
        if left >= unit:
            rest = left % unit // part
            return f"{left // unit} {name}" + (f" {rest} {part_name}" if rest and part > 1 else "")
    return f"{left} s"
