"""The standard streams: one kind of payload on stdout, messages and progress bars on stderr."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import IO, Any, BinaryIO

from polyinr_core.errors import RequestError
from polyinr_core.runtime.strict_json import format_json

Progress = Callable[[int, int], None]
NotedProgress = Callable[[int, int, str], None]
FIRST_LINE, LINE_EVERY = 30.0, 300.0  # seconds between lines of progress, where no bar can be drawn
LINE_SECONDS = 10.0  # between lines of progress where stderr is a file or a pipe
# of facts in columns
MAX_LISTED = 12  # items of a list or of nested facts on a line
WIDTH, MIN_WIDTH = 110, 40  # columns of a line, and of its text
MAX_LINES = 4  # after the first one of a long text
MAX_INDENT = 4  # columns: facts that are nested deeper are only named


def is_terminal(stream: IO[str] | None) -> bool:
    """Return whether a stream is open and a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def say(message: str, *, quiet: bool = False, always: bool = False) -> None:
    """Write a line to stderr if it is a terminal; `always` also if it is a file or a pipe."""
    if quiet or sys.stderr is None or not (always or is_terminal(sys.stderr)):
        return
    with contextlib.suppress(OSError, ValueError):  # a closed stderr is no reason to stop
        print(message, file=sys.stderr, flush=True)


def count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 image, 2 images."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def say_notes(path: object, notes: Iterable[str], *, quiet: bool = False) -> None:
    """Report what was skipped in a dataset, also to a file or a pipe."""
    for note in notes:
        say(f"polyinr: {path}: {note}", quiet=quiet, always=True)


@contextmanager
def progress(description: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Yield a callback (done, total) that moves a progress bar on stderr, or writes a line there every so often."""
    with progress_bars(quiet=quiet) as bar:
        yield bar(description)


@contextmanager
def progress_bars(*, quiet: bool = False, estimate: bool = False) -> Iterator[Callable[[str], Progress]]:
    """Yield a function that makes such a callback for a description, each with its own bar.

    With `estimate` the first line comes with the first step, if the others take longer than half a minute.
    """
    with _noted_bars(quiet=quiet, estimate=estimate) as bar:

        def unnoted(description: str) -> Progress:
            move = bar(description)
            return lambda done, total: move(done, total, "")

        yield unnoted


@contextmanager
def noted_progress(description: str, *, quiet: bool = False) -> Iterator[NotedProgress]:
    """Yield a callback (done, total, note) that moves a bar and shows the note beside it."""
    with _noted_bars(quiet=quiet) as bar:
        yield bar(description)


@contextmanager
def psnr_progress(description: str, *, quiet: bool = False) -> Iterator[Callable[[int, int, float], None]]:
    """Yield a callback (done, total, PSNR in dB) that moves a bar, or without a terminal writes a line now and then."""
    if is_terminal(sys.stderr):
        with noted_progress(description, quiet=quiet) as move:
            yield lambda done, total, psnr: move(done, total, f"PSNR {psnr:.1f} dB")
        return
    started = latest = time.monotonic()

    def report(done: int, total: int, psnr: float) -> None:
        nonlocal latest
        if (now := time.monotonic()) - latest < LINE_SECONDS:
            return
        latest, spent = now, now - started
        times = f"{spent:.0f} s, at most {spent / max(1, done) * (total - done):.0f} s more"
        say(f"{description}: {done} of at most {total} steps, PSNR {psnr:.1f} dB, {times}", quiet=quiet, always=True)

    yield report


@contextmanager
def _noted_bars(*, quiet: bool, estimate: bool = False) -> Iterator[Callable[[str], NotedProgress]]:
    """Yield a function that makes callbacks; all bars share one display, as two would overwrite each other."""
    if quiet:
        yield lambda description: lambda done, total, note: None
        return
    if not is_terminal(sys.stderr):
        yield partial(line_progress, estimate=estimate)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with RichProgress(*columns, console=console, transient=True, redirect_stdout=False) as bars:

        def bar(description: str) -> NotedProgress:
            task = bars.add_task(description, total=None, note="")
            return lambda done, total, note: bars.update(task, completed=done, total=total, note=note)

        yield bar


class LineSchedule:
    """When a line is due where no bar can be: after half a minute, then less and less often, every five minutes."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.due = self.start + FIRST_LINE

    def is_due(self) -> bool:
        """Return whether a line is due; if so, the next one is due later."""
        now = time.monotonic()
        if now < self.due:
            return False
        self.due = now + min(max(FIRST_LINE, (now - self.start) / 2), LINE_EVERY)
        return True


def line_progress(description: str, *, estimate: bool = False) -> NotedProgress:
    """Return a callback that writes a line every so often, for a stderr that is a file or a pipe.

    With `estimate` it also writes one after the first step, if the others take longer than FIRST_LINE.
    """
    schedule = LineSchedule()
    is_first = estimate

    def move(done: int, total: int, note: str) -> None:
        nonlocal is_first
        if not 0 < done < total:
            return
        left = (time.monotonic() - schedule.start) * (total - done) / done
        is_expected, is_first = is_first and left > FIRST_LINE, False
        if schedule.is_due() or is_expected:
            about = f"about {left / 60:.0f} min" if left >= 90 else f"about {left:.0f} s"
            words = [f"{description}: {done / total:.0%}", note, f"{about} left"]
            say(f"polyinr: {', '.join(filter(None, words))}", always=True)

    return move


@contextmanager
def row_progress(description: str, *, total: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Yield a callback that adds steps to a progress bar of `total` steps."""
    with progress(description, quiet=quiet) as move:
        done = 0

        def add(rows: int) -> None:
            nonlocal done
            done += rows
            move(done, total)

        yield add


def json_lines(facts: Iterable[object]) -> None:
    """Write JSON objects to stdout, each as one line."""
    for fact in facts:
        json_line(fact)


def json_line(fact: object) -> None:
    """Write a JSON object as one line to stdout and flush; file names that are not UTF-8 are escaped."""
    stdout = _open_stdout()
    stdout.write(format_json(fact, sort_keys=False) + "\n")
    stdout.flush()


def line(text: str) -> None:
    """Write a line to stdout; control characters are shown as question marks."""
    _open_stdout().write("".join(c if c.isprintable() else "?" for c in text) + "\n")


def lines(texts: Iterable[str]) -> None:
    """Write lines to stdout; see `line`."""
    for text in texts:
        line(text)


def print_columns(facts: Mapping[str, Any], *, indent: int = 0) -> None:
    """Print facts, one per line, with the names in a column; empty ones are left out, nested ones indented."""
    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {}, ())}
    column = indent + max(map(len, shown), default=0) + 2
    for name, value in shown.items():
        title = f"{' ' * indent}{str(name).replace('_', ' ')}"
        text = _text_of(value)
        if isinstance(value, dict) and (len(text) > WIDTH - column or any(isinstance(v, dict) for v in value.values())):
            if indent < MAX_INDENT:
                line(title)
                print_columns(value, indent=indent + 2)
                continue
            text = f"{', '.join(map(str, value))} (with --json)"
        if name == "command":  # to be copied
            first, *others = [text]
        else:
            first, *others = wrap(text, max(WIDTH - column, MIN_WIDTH), break_on_hyphens=False) or [""]
        line(f"{title:{column}}{first}")
        for more in others[:MAX_LINES]:
            line(f"{'':{column}}{more}")
        if len(others) > MAX_LINES:
            line(f"{'':{column}}... (all of it with --json)")


def _text_of(value: object) -> str:
    """Return a fact as text on one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        items = [f"{key} {item if isinstance(item, list) else _text_of(item)}" for key, item in value.items()]
    elif isinstance(value, list):
        items = [str(item) for item in value]
    else:
        return json.dumps(value)
    more = f", and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    between = " " if all(item.endswith(".") for item in items) else ", "  # whole sentences
    return between.join(items[:MAX_LISTED]) + more


@dataclass(frozen=True)
class Reporter:
    """What a command says: JSON lines on stdout if asked, messages on stderr unless quiet."""

    as_json: bool = False
    quiet: bool = False

    def json(self, path: Path, facts: dict[str, Any]) -> None:
        """Print one JSON line for a file."""
        if self.as_json:
            json_line({"file": str(path), **facts})

    def say(self, message: str) -> None:
        """Print a line on a terminal."""
        say(message, quiet=self.quiet)


def binary_stdout(payload: str = "image") -> BinaryIO:
    """Return stdout for bytes. Raises RequestError if it is a terminal."""
    stdout = _open_stdout()
    if is_terminal(stdout):
        raise RequestError(f"refusing to write {payload} data to a terminal; use -o FILE or redirect stdout")
    return stdout.buffer  # type: ignore[attr-defined]


def write_stdout(data: bytes, payload: str = "image") -> None:
    """Write bytes to stdout. Raises RequestError if it is a terminal."""
    stdout = binary_stdout(payload)
    stdout.write(data)
    stdout.flush()


def binary_stdin(payload: str = "latents") -> bytes:
    """Return all bytes of stdin. Raises RequestError if it is closed or a terminal."""
    if sys.stdin is None or is_terminal(sys.stdin):
        raise RequestError(f"stdin is empty; pipe {payload} data into it")
    return sys.stdin.buffer.read()


def refuse_two_payloads(output: str | os.PathLike[str] | None, *, as_json: bool) -> None:
    """Raise RequestError if both data and JSON lines would go to stdout."""
    if as_json and output is not None and os.fspath(output) == "-":
        raise RequestError("--json and -o - both write to stdout; name a file with -o, or leave --json out")


def abandon_stdout() -> None:
    """Redirect stdout to the null device after its reader has closed, so that exiting raises no error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_stdout() -> IO[str]:
    if sys.stdout is None:
        raise RequestError("stdout is closed; redirect it with > or |")
    return sys.stdout
