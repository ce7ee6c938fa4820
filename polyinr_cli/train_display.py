"""The live display of a training run on stderr: where it stands, how fast it goes, what it has measured."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console as streams

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from polyinr_core.training.config import TrainingConfig
    from polyinr_core.training.state import TrainingState

REFRESH = 0.5  # seconds between two refreshes
BAR = 40  # columns
LOSSES = {"loss_g": "generator", "loss_d": "discriminator", "loss_guidance": "guidance"}  # log key: shown name
CPU_TIMES = {  # docs/training.md
    "small": "one CPU core trains on about 40 images a second at 32 px, 15 at 64 px; ",
    "imagenet": "this preset is for GPUs and takes years on a CPU; ",
    "ffhq": "this preset is for GPUs and takes years on a CPU; ",
}


class Display:
    """The live display of a run; without a `console`, plain lines: messages, and progress every so often.

    `stages` holds the resolution of each stage and its images in whole batches, `metric` the metric to show; `deadline`
    is the value of time.monotonic() at which the run stops. `opening` are messages to print at the first event: once
    the run has begun. With `as_json` events are printed on stdout as well. No thread refreshes the display: a loader
    that forks while it does would inherit its locks.
    """

    def __init__(
        self,
        folder: Path,
        stages: Sequence[tuple[int, int]],
        *,
        metric: str | None,
        deadline: float | None,
        quiet: bool,
        console: "Console | None",
        opening: Sequence[str] = (),
        as_json: bool = False,
    ) -> None:
        self.folder = folder
        self.stages = stages
        self.metric = metric
        self.deadline = deadline
        self.quiet = quiet
        self.opening = list(opening)
        self.as_json = as_json
        self.broken_pipe: BrokenPipeError | None = None  # once the reader of the JSON lines has gone
        self.facts: dict[str, Any] = {}
        self.distance: tuple[float, float] | None = None  # value, kimg
        self.best: tuple[float, float] | None = None  # of this stage
        self.stage = 0
        self.images = 0  # seen in this stage
        self.total_images = 0
        self.anchor: tuple[float, int] | None = None  # time and images of this stage, from which speed is measured
        self.refreshed = 0.0  # time of the last refresh
        self.schedule = None if quiet or console is not None else streams.LineSchedule()
        self.live = None if console is None else self.live_on(console)

    def live_on(self, console: "Console") -> "Live":
        """Return Rich's live display, above which it shows what is printed on stderr meanwhile."""
        from rich.live import Live

        return Live(console=console, auto_refresh=False, redirect_stdout=False, get_renderable=lambda: self.table())

    def event(self, event: dict[str, Any]) -> None:
        """Show an event of the run's log; print its message or warning, and its JSON line."""
        while self.opening:
            self.say(f"polyinr: {self.opening.pop(0)}")
        self.show(event)
        if self.as_json and "message" not in event and self.broken_pipe is None:
            try:
                streams.json_line(event)
            except BrokenPipeError as error:
                self.broken_pipe = error
                streams.abandon_stdout()

    @property
    def is_over(self) -> bool:
        """Whether the run should stop: its time is over, or nobody reads its JSON lines any more."""
        return self.broken_pipe is not None or (self.deadline is not None and time.monotonic() > self.deadline)

    def show(self, event: dict[str, Any]) -> None:
        """Show an event; print its message or warning."""
        if "message" in event:
            self.say(f"polyinr: {event['message']}")
            return
        if "warning" in event:
            self.say(f"polyinr: warning: {event['warning']}")
        if event.get("stage", 0) != self.facts.get("stage", 0):
            self.best = self.distance = None  # at another resolution
        if self.anchor is None and "kimg" in event:  # a resumed run before its first iteration
            self.stage, self.total_images = event["stage"], round(1000 * event["kimg"])
            before = sum(images for _, images in self.stages[: self.stage])
            self.images = min(max(0, self.total_images - before), self.stages[self.stage][1])
        self.facts |= {key: value for key, value in event.items() if value is not None}
        if (value := event.get(self.metric or "")) is not None:
            earlier, self.distance = self.distance, (value, event["kimg"])
            if earlier is not None and earlier[1]:  # the untrained model is never the best
                self.best = min(self.best or earlier, self.distance)
        self.refresh()

    def progress(self, state: "TrainingState") -> None:
        """Show the progress of a training state."""
        self.update(state.total_images, stage=state.stage, images=state.images)

    def update(self, total_images: int, *, stage: int, images: int) -> None:
        """Show progress: the images seen in all stages, and those in this one."""
        if stage != self.stage or self.anchor is None:
            self.anchor = time.monotonic(), images
        self.stage, self.images, self.total_images = stage, images, total_images
        if self.schedule is not None and self.schedule.is_due():
            self.say(f"polyinr: {self.line()}")
        if time.monotonic() - self.refreshed >= REFRESH:
            self.refresh()

    def say(self, text: str) -> None:
        """Write a line, above the display if there is one."""
        streams.say(text, quiet=self.quiet, always=True)

    def refresh(self) -> None:
        """Refresh the display. If its terminal has gone, the run continues without it."""
        if self.live is None:
            return
        self.refreshed = time.monotonic()
        try:
            self.live.refresh()
        except (OSError, ValueError):
            self.live = None

    def line(self) -> str:
        """Return the progress of the run as one line."""
        shown = [
            words if name in ("run", "speed", "losses") else f"{name} {words}"
            for name, words in self.rows()
            if name in ("run", "speed", "losses", self.metric)
        ]
        return f"stage {self.stage + 1} of {len(self.stages)}, {self.stages[self.stage][0]} px; {'; '.join(shown)}"

    def table(self) -> "Table":
        """Return the display's table."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        table.add_row("", ProgressBar(total=self.total, completed=self.total_images, width=BAR))
        for name, words in self.rows():
            printable = "".join(c if c.isprintable() else "?" for c in words)
            table.add_row(name, Text(printable, style="yellow" if name == "warning" else ""))
        return table

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the display: a name and its words."""
        from polyinr_core.training.logging import duration

        facts = self.facts
        resolution, images = self.stages[self.stage]
        stage_left, run_left = self.seconds_left()
        number = f"{self.stage + 1} of {len(self.stages)}, {resolution} px"
        yield "stage", f"{number}: {thousands(self.images, images)}{stage_left}"
        yield "run", f"{thousands(self.total_images, self.total)}{run_left}"
        if self.deadline is not None:
            yield "stops", f"in {duration(self.deadline - time.monotonic())} (--max-time)"
        if "img_per_sec" in facts:
            yield "speed", f"{facts['img_per_sec']:.4g} images/s"
        if losses := [f"{name} {facts[key]:.3f}" for key, name in LOSSES.items() if key in facts]:
            yield "losses", ", ".join(losses)
        if "d_sign_fake" in facts and "d_sign_real" in facts:
            yield "signs", f"fakes {facts['d_sign_fake']:+.2f}, reals {facts['d_sign_real']:+.2f}"
        if self.distance:
            last, *best = (f"{value:.5g} at {kimg:g}" for value, kimg in filter(None, (self.distance, self.best)))
            yield self.metric or "", ", best ".join([f"{last} kimg", *best])
        if "cpu_mem_mib" in facts:
            cuda = f", {facts['gpu_mem_mib']:.0f} MiB peak on the GPU" if "gpu_mem_mib" in facts else ""
            yield "memory", f"{facts['cpu_mem_mib']:.0f} MiB{cuda}"
        if "warning" in facts:
            yield "warning", facts["warning"].partition(":")[0]
        yield "folder", str(self.folder)

    @property
    def total(self) -> int:
        """The images of the whole run: those before this stage as they were, the rest as planned."""
        return self.total_images - self.images + sum(images for _, images in self.stages[self.stage :])

    def seconds_left(self) -> tuple[str, str]:
        """Say how long the stage and the run still take at the speed of this stage, pauses and all."""
        from polyinr_core.training.logging import duration

        if self.anchor is None or (done := self.images - self.anchor[1]) <= 0:
            return "", ""
        pace = (time.monotonic() - self.anchor[0]) / done
        stage = pace * (self.stages[self.stage][1] - self.images)
        run = pace * (self.total - self.total_images)
        more = "more than " if self.stage + 1 < len(self.stages) else ""  # larger images take longer
        return f", {duration(stage)} left", f", {more}{duration(run)} left"


@contextmanager
def display(
    folder: Path,
    stages: Sequence[tuple[int, int]],
    *,
    metric: str | None = None,
    deadline: float | None = None,
    opening: Sequence[str] = (),
    quiet: bool = False,
    as_json: bool = False,
) -> Iterator[Display]:
    """Show a run while the block lasts; see `Display`.

    There is no live display when `quiet`, when stderr is no terminal, or when JSON lines come to the same terminal.
    """
    console = None
    if not quiet and streams.is_terminal(sys.stderr) and not (as_json and streams.is_terminal(sys.stdout)):
        from rich.console import Console

        console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
    options: dict[str, Any] = {"metric": metric, "deadline": deadline, "opening": opening}
    show = Display(folder, stages, **options, quiet=quiet, console=console, as_json=as_json)
    live, terminal = show.live, sys.stderr
    if live is None:
        yield show
        return
    live.start()
    redirect_logging(terminal, sys.stderr)
    try:
        yield show
    finally:
        redirect_logging(sys.stderr, terminal)
        with contextlib.suppress(OSError, ValueError):
            live.stop()


def redirect_logging(old: Any, new: Any) -> None:
    """Let log handlers that write to `old` write to `new`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is old:
            handler.setStream(new)


def thousands(done: int, total: int) -> str:
    """Write images as thousands: 12.3 of 200 kimg, 6 %."""
    digits = 1 if total >= 10000 else 3
    return f"{done / 1000:.{digits}f} of {total / 1000:g} kimg, {done / max(total, 1):.0%}"


def expectations(config: "TrainingConfig", device: "torch.device") -> list[str]:
    """Return messages: on what a run trains, how far, and what time to expect."""
    import torch

    from polyinr_core.training.config import PRESETS

    on_cpu, expected = device.type == "cpu", ""
    where = f"the CPU, threads: {torch.get_num_threads()}" if on_cpu else str(device)
    stages = ", ".join(f"{stage.resolution} px for {stage.kimg:g} kimg" for stage in config.stages)
    for preset, time_on_cpu in CPU_TIMES.items() if on_cpu else ():
        usual = PRESETS[preset]
        if (config.generator(0), config.discriminator(0)) == (usual.generator(0), usual.discriminator(0)):
            expected = time_on_cpu
    return [f"training on {where}; {stages}", f"{expected}--dry-run measures time and memory"]
