"""Signals: Ctrl-C and its like end a command at once and tidily, a training run at the next good moment."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from types import FrameType
from typing import Any

SAME_WISH = 3.0  # seconds: torchrun hands on to its processes the Ctrl-C that the terminal has sent them already
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C; a scheduler; a terminal that was closed
ONCE_MORE = 0.05  # seconds until an interruption that got lost is raised again


class Interruption:
    """The last signal that asked this process to end: its number, when it came, whether it was raised at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.since = 0.0
        self.is_raised = False

    @property
    def exit_code(self) -> int:
        """The exit code of what was interrupted: 130 by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP."""
        return 128 + (signal.SIGINT if self.number is None else self.number)

    def note(self, number: int) -> bool:
        """Note a signal; say whether it is a new wish, and not the one before once more."""
        now = time.monotonic()
        is_new = self.number is None or now - self.since > SAME_WISH
        if is_new:
            self.number, self.since = number, now
        return is_new

    def forget(self) -> None:
        """Begin anew: no signal has come."""
        self.number = None
        self.is_raised = False


interruption = Interruption()


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: raise KeyboardInterrupt, unless another came just before and is being seen to."""
    if interruption.note(number):
        interruption.is_raised = True
        raise KeyboardInterrupt


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP interrupt like Ctrl-C, each unless it is ignored, as under `nohup`."""
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    usual = sys.unraisablehook

    def raise_again(trouble: Any) -> None:
        """Raise an interruption again that came where nothing can be raised, such as while an object goes."""
        if interruption.number is None or not issubclass(trouble.exc_type, KeyboardInterrupt):
            usual(trouble)
            return
        number = interruption.number
        interruption.forget()
        timer = Timer(ONCE_MORE, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = raise_again


def die_of_signals() -> None:
    """Let signals end the process without a word, where nothing is left to tidy up."""
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class Stopping:
    """Whether somebody wants the run to stop.

    Until `asked` is called for the first time, after the first iteration, a signal interrupts at once. From then
    on it is only noted; a second Ctrl-C interrupts, unless it comes so soon that it is the first one once more.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.patient = False

    def asked(self) -> bool:
        """Say whether a signal came, and be patient from now on."""
        self.patient = True
        return self.since is not None

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Note a signal. Raises KeyboardInterrupt."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
            interruption.note(number)
            interrupts = not self.patient
        else:
            interrupts = number == signal.SIGINT and now - self.since > SAME_WISH
        if interrupts:
            interruption.is_raised = True
            raise KeyboardInterrupt


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Listen to the signals that ask for an end; under `nohup` not to the end of the terminal."""
    wish = Stopping()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, wish.catch) for number in numbers}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
