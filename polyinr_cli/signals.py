"""Signals: Ctrl-C and its like stop a run at the next good moment, or at once while nothing can be lost."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

SAME_WISH = 3.0  # seconds: torchrun hands on to its processes the Ctrl-C that the terminal has sent them already


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

    def catch(self, number: int, frame: object) -> None:
        """Note a signal. Raises KeyboardInterrupt."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
            interrupts = not self.patient
        else:
            interrupts = number == signal.SIGINT and now - self.since > SAME_WISH
        if interrupts:
            raise KeyboardInterrupt


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Listen to the signals that ask for an end; under `nohup` not to the end of the terminal."""
    wish = Stopping()
    numbers = [signal.SIGINT, signal.SIGTERM]  # Ctrl-C; a scheduler
    hang_up = getattr(signal, "SIGHUP", None)  # a terminal that was closed; Windows has none
    if hang_up and signal.getsignal(hang_up) is not signal.SIG_IGN:
        numbers.append(hang_up)
    before = {number: signal.signal(number, wish.catch) for number in numbers}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
