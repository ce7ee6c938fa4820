"""Where the numbers and samples of a run can be followed: TensorBoard, Weights & Biases, Trackio."""

import io
import math
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from polyinr_core.errors import PolyinrError, RequestError, TrainingError
from polyinr_core.images.grid import Pixels
from polyinr_core.images.io import encode_image

from .run_dir import RunFolder

MAX_WIDTH = 1024  # pixels of an image
PROJECT = "polyinr"  # in which Weights & Biases and Trackio gather the runs
RUN_ID = "tracking-id"  # the file of a run folder by which a resumed run is found again there


class Tracker(Protocol):
    """What a run's numbers and images are written to; `step` is the number of images seen."""

    def resume_at(self, step: int) -> None:
        """Discard what was written after `step`, where the run has resumed, as far as possible."""

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Write numbers under their tags, as loss/loss_g."""

    def image(self, tag: str, pixels: Pixels, step: int) -> None:
        """Write an image [H, W, 3]."""

    def close(self) -> None:
        """Write what is left, and end."""


class Trackers:
    """The trackers of a run, each opened when the first entry comes, and given up when it fails.

    No failure of a tracker may end the training: its first one is reported as a message.

    Args:
        names: Of TRACKERS. None: TensorBoard, if it is installed.
        folder: The run folder.
        config: The run's settings, as plain JSON values.
        report: Called with {"message": ...}.
    """

    def __init__(
        self,
        names: Sequence[str] | None,
        folder: RunFolder,
        config: Mapping[str, Any],
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self.folder, self.config, self.report = folder, config, report
        default = ("tensorboard",) if find_spec("tensorboard") else ()
        self.opened: dict[str, Tracker | None] = dict.fromkeys(default if names is None else names)

    def open(self) -> None:
        """Open all trackers now, before the work begins. Raises TrainingError."""
        for name in self.opened:
            try:
                self.opened[name] = TRACKERS[name](self.folder, self.config)
            except Exception as error:
                raise TrainingError(f"--track {name}: {one_line(error)}; correct it or leave it out") from error

    def write(self, entry: Callable[[Tracker], None]) -> None:
        """Call `entry` with each tracker."""
        for name, tracker in list(self.opened.items()):
            try:
                if tracker is None:
                    tracker = self.opened[name] = TRACKERS[name](self.folder, self.config)
                entry(tracker)
            except Exception as error:
                del self.opened[name]
                self.report({"message": f"{TITLES[name]} logging to {self.folder.path} stopped: {one_line(error)}"})

    def close(self) -> None:
        """Close the trackers that are open."""
        for tracker in self.opened.values():
            if tracker is not None:
                with suppress(Exception):
                    tracker.close()
        self.opened.clear()


class TensorBoardFile:
    """An event file in the run folder."""

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event, self.session_log, self.summary = Event, SessionLog, Summary
        folder.tensorboard.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}"
        self.file = (folder.tensorboard / name).open("ab", buffering=0)
        self.records = RecordWriter(self.file)
        self.put(step=0, file_version="brain.Event:2")

    def resume_at(self, step: int) -> None:
        self.put(step=step + 1, session_log=self.session_log(status=self.session_log.START))

    def scalars(self, values: dict[str, float], step: int) -> None:
        entries = [self.summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self.put(step=step, summary=self.summary(value=entries))

    def image(self, tag: str, pixels: Pixels, step: int) -> None:
        pixels = reduced(pixels)
        height, width, _ = pixels.shape
        image = self.summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode_image(pixels))
        self.put(step=step, summary=self.summary(value=[self.summary.Value(tag=tag, image=image)]))

    def put(self, **content: Any) -> None:
        """Write one event."""
        self.records.write(self.event(wall_time=time.time(), **content).SerializeToString())

    def close(self) -> None:
        self.file.close()


class WandbRun:
    """A run of Weights & Biases. Project, account and mode are those of its own settings, as $WANDB_MODE=offline.

    Its own steps can only grow, so everything is plotted over the key `images`; a resumed run draws over what it
    repeats. Its local files lie in the run folder, in wandb/.
    """

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        import wandb

        self.to_image = wandb.Image
        self.run = wandb.init(
            project=wandb.setup().settings.project or PROJECT,
            name=folder.path.absolute().name,
            id=run_id(folder.path),
            resume="allow",
            dir=folder.path,
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True),
        )
        self.run.define_metric("images")
        self.run.define_metric("*", step_metric="images")

    def resume_at(self, step: int) -> None:
        pass

    def scalars(self, values: dict[str, float], step: int) -> None:
        self.run.log({**values, "images": step})

    def image(self, tag: str, pixels: Pixels, step: int) -> None:
        self.run.log({tag: self.to_image(Image.fromarray(reduced(pixels))), "images": step})

    def close(self) -> None:
        self.run.finish()


class TrackioRun:
    """A run of Trackio, on this machine, or where its own settings say, as $TRACKIO_SPACE_ID."""

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        import trackio

        self.trackio = trackio
        name = f"{folder.path.absolute().name}-{run_id(folder.path)}"
        with redirect_stdout(io.StringIO()):  # it prints how to open its page
            self.run = trackio.init(PROJECT, name=name, resume="allow", config=dict(config), embed=False)

    def resume_at(self, step: int) -> None:
        pass

    def scalars(self, values: dict[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def image(self, tag: str, pixels: Pixels, step: int) -> None:
        self.run.log({tag: self.trackio.Image(reduced(pixels))}, step=step)

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self.trackio.finish()


TRACKERS: dict[str, Callable[[RunFolder, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoardFile,
    "wandb": WandbRun,
    "trackio": TrackioRun,
}
TITLES = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases", "trackio": "Trackio"}


def check_trackers(names: Sequence[str]) -> None:
    """Raise RequestError for a tracker that does not exist, PolyinrError for one whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise RequestError(f"tracker {name!r} is unknown; choose from {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise PolyinrError(f"the tracker {name} needs a package; run pip install {name}")


def run_id(folder: Path) -> str:
    """Return the digits by which a run folder's run is found again, made and stored at the first call."""
    path = folder / RUN_ID
    if path.exists():
        return path.read_text("ascii").strip()
    digits = secrets.token_hex(4)
    path.write_text(f"{digits}\n", "ascii")
    return digits


def reduced(pixels: Pixels) -> Pixels:
    """Return an image [H, W, 3], reduced by a whole factor if it is wider than MAX_WIDTH."""
    factor = math.ceil(pixels.shape[1] / MAX_WIDTH)
    return np.asarray(Image.fromarray(pixels).reduce(factor)) if factor > 1 else pixels


def one_line(error: Exception) -> str:
    """Return an error's message, or its type's name, as one line."""
    return " ".join(str(error).split()) or type(error).__name__
