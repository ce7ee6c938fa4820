"""The log of a run: log.jsonl, what trackers get of it, and memory use."""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

from polyinr_core.images.grid import Pixels

from .run_dir import RunFolder
from .tracking import Tracker, Trackers

Event = dict[str, Any]

MIB = 2**20
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
STATM = Path("/proc/self/statm")  # Linux: sizes in pages, the resident one second
TAGS = {  # groups of charts
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
    """Writes the events of a run to log.jsonl and to trackers, and reports them.

    An event is a flat dict with `kimg`, `stage`, `resolution` and its facts; numbers that are not finite become null.
    FileError is raised when log.jsonl cannot be written; a tracker raises nothing.

    Args:
        folder: The run folder.
        report: Called with each event, and with {"message": ...} for messages.
        track: Names of trackers. None: TensorBoard, if it is installed.
        config: The run's settings, for trackers that show them.
    """

    def __init__(
        self,
        folder: RunFolder,
        report: Callable[[Event], None],
        *,
        track: Sequence[str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.report = report
        self.trackers = Trackers(track, folder, config or {}, report)

    def write(self, event: Event) -> None:
        """Log an event, report it, and hand its numbers to the trackers. Raises FileError."""
        event = {key: plain(value) for key, value in event.items()}
        self.folder.append(event)
        self.report(event)
        step = round(1000 * event["kimg"])
        values = {
            f"{TAGS.get(key, METRICS_TAG)}/{key}": value
            for key, value in event.items()
            if key != "kimg" and is_number(value)
        }

        def entry(tracker: Tracker) -> None:
            if event.get("resumed"):
                tracker.resume_at(step)
            tracker.scalars(values, step)

        self.trackers.write(entry)

    def image(self, name: str, pixels: Pixels, *, images: int) -> None:
        """Hand an image [H, W, 3], as a grid of samples after `images` images, to the trackers."""
        self.trackers.write(lambda tracker: tracker.image(name, pixels, images))

    def close(self) -> None:
        """Close the trackers."""
        self.trackers.close()


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
