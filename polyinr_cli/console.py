"""The standard streams: one kind of payload on stdout, messages and progress on stderr."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

from polyinr_core.errors import RequestError
from polyinr_core.runtime.strict_json import format_json

Progress = Callable[[int, int], None]
NotedProgress = Callable[[int, int, str], None]


def is_terminal(stream: IO[str] | None) -> bool:
    """Say whether a stream is open and a person's terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def say(message: str, *, quiet: bool = False, always: bool = False) -> None:
    """Write a line for the person at the terminal; `always` writes it to a log or a pipe as well."""
    if quiet or sys.stderr is None or not (always or is_terminal(sys.stderr)):
        return
    with contextlib.suppress(OSError, ValueError):  # nobody reads it: no reason to stop the work
        print(message, file=sys.stderr, flush=True)


def say_notes(path: object, notes: Iterable[str], *, quiet: bool = False) -> None:
    """Say, to a log as well, what was ignored in a data set."""
    for note in notes:
        say(f"polyinr: {path}: {note}", quiet=quiet, always=True)


@contextmanager
def progress(description: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Yield a callback (done, total) that moves a bar on stderr; a silent one if that is no terminal."""
    with progress_bars(quiet=quiet) as bar:
        yield bar(description)


@contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[Callable[[str], Progress]]:
    """Yield what makes such a callback of a description, each with a bar of its own, one below the other."""
    with _noted_bars(quiet=quiet) as bar:

        def unnoted(description: str) -> Progress:
            move = bar(description)
            return lambda done, total: move(done, total, "")

        yield unnoted


@contextmanager
def noted_progress(description: str, *, quiet: bool = False) -> Iterator[NotedProgress]:
    """Yield a callback (done, total, note) that moves such a bar and shows a few words, the note, beside it."""
    with _noted_bars(quiet=quiet) as bar:
        yield bar(description)


@contextmanager
def _noted_bars(*, quiet: bool) -> Iterator[Callable[[str], NotedProgress]]:
    """Yield what makes callbacks of descriptions: all bars in one display, as two would overwrite each other."""
    if quiet or not is_terminal(sys.stderr):
        yield lambda description: lambda done, total, note: None
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


@contextmanager
def row_progress(description: str, *, total: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Yield a callback that adds rows, or whatever is counted, to a bar of `total`."""
    with progress(description, quiet=quiet) as move:
        done = 0

        def add(rows: int) -> None:
            nonlocal done
            done += rows
            move(done, total)

        yield add


def json_line(fact: object) -> None:
    """Write one JSON object as one line to stdout, at once; a file name that is not UTF-8 comes escaped."""
    stdout = _open_stdout()
    stdout.write(format_json(fact, sort_keys=False) + "\n")
    stdout.flush()


def line(text: str) -> None:
    """Write one line of a report to stdout; what would steer the terminal is shown as a question mark."""
    _open_stdout().write("".join(c if c.isprintable() else "?" for c in text) + "\n")


def binary_stdout(payload: str = "image") -> BinaryIO:
    """Return stdout for bytes. Raises RequestError if it is a terminal, where bytes would be noise."""
    stdout = _open_stdout()
    if is_terminal(stdout):
        raise RequestError(
            f"stdout is a terminal, not a place for {payload} bytes; send them on with | or >, or name a file: -o"
        )
    return stdout.buffer  # type: ignore[attr-defined]


def binary_stdin(payload: str = "latents") -> bytes:
    """Return all bytes of stdin. Raises RequestError if it is closed or a terminal, where nobody types bytes."""
    if sys.stdin is None or is_terminal(sys.stdin):
        raise RequestError(f"nothing is piped in; {payload} bytes are expected on stdin")
    return sys.stdin.buffer.read()


def refuse_two_payloads(output: str | os.PathLike[str] | None, *, as_json: bool) -> None:
    """Raise RequestError if both a file's bytes and JSON lines would go to stdout."""
    if as_json and output is not None and os.fspath(output) == "-":
        raise RequestError("--json and -o - both want stdout; name a file with -o, or leave out --json")


def abandon_stdout() -> None:
    """Point stdout at nothing after its reader has gone, so that closing it at exit raises no error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_stdout() -> IO[str]:
    if sys.stdout is None:
        raise RequestError("stdout is closed; send it somewhere with > or |")
    return sys.stdout
