"""TensorBoard's event file: scalars and pictures by step, written at once, by no thread.

Its own writer hands events to a thread, whose failure on a full disk prints a traceback and whose locks a forked
loader would inherit; so only its record format and its messages are used here. A resumed run begins a new file
beside the older ones: a record that a crash cut off would hide all that follows it in the same file.
"""

import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..pictures.files import encode_picture
from ..pictures.sheet import Pixels

WIDEST = 1024  # pixels of a picture in the file


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

    def picture(self, tag: str, pixels: Pixels, step: int) -> None:
        """Write a picture [H, W, 3], reduced by a whole factor if it is wider than `WIDEST`."""
        if (factor := math.ceil(pixels.shape[1] / WIDEST)) > 1:
            pixels = np.asarray(Image.fromarray(pixels).reduce(factor))
        height, width, _ = pixels.shape
        image = self.summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encode_picture(pixels)
        )
        self.put(step=step, summary=self.summary(value=[self.summary.Value(tag=tag, image=image)]))

    def put(self, **content: Any) -> None:
        """Write one event."""
        self.records.write(self.event(wall_time=time.time(), **content).SerializeToString())

    def close(self) -> None:
        """Close the file."""
        self.file.close()
