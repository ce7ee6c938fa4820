"""Signals that ask a run to stop: at once before the first iteration, then noted; a second Ctrl-C interrupts."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyinr_cli import runtime as signals
from polyinr_cli.runtime import stopping


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the first entry says."""
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Have the signals' handlers the way a shell gives them, and find the same afterwards."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    found = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    assert {number: signal.getsignal(number) for number in usual} == usual
    for number, handler in found.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ALL)
def test_before_the_first_iteration_there_is_nothing_to_wait_for(number: int) -> None:
    with pytest.raises(KeyboardInterrupt), stopping():
        send(number)


@pytest.mark.parametrize("number", ALL)
def test_afterwards_a_signal_is_noted(number: int) -> None:
    with stopping() as stop:
        assert not stop.asked()
        send(number)
        assert stop.asked()


@pytest.mark.parametrize("second", ALL)
@pytest.mark.parametrize("first", ALL)
def test_what_follows_at_once_is_the_same_wish(clock: list[float], first: int, second: int) -> None:
    with stopping() as stop:
        stop.asked()
        send(first)
        clock[0] += 0.5
        send(second)
        assert stop.asked()


def test_what_follows_does_not_disturb_the_end_of_a_start(clock: list[float]) -> None:
    """The first Ctrl-C interrupts the loading; the one that torchrun hands on comes while that is tidied up."""
    with stopping():
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        send(signal.SIGINT)
        send(signal.SIGTERM)


def test_a_second_ctrl_c_interrupts_and_nothing_else_does(clock: list[float]) -> None:
    with stopping() as stop:
        stop.asked()
        send(signal.SIGTERM)
        clock[0] += 5
        send(signal.SIGTERM)
        send(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_under_nohup_the_end_of_the_terminal_is_no_reason() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping() as stop:
        send(signal.SIGHUP)
        assert not stop.asked()
    assert signal.signal(signal.SIGHUP, signal.SIG_DFL) is signal.SIG_IGN


@pytest.mark.parametrize("number", ALL)
def test_a_signal_while_torch_is_imported_exits_at_once(number: int, tmp_path: Path) -> None:
    """An exception there would abort PyTorch's C++ with a message, and no file is being written."""
    (tmp_path / "torch.py").write_text("import os\nos.kill(os.getpid(), int(os.environ['NUMBER']))\nprint('missed')")
    code = "from polyinr_cli.runtime import interrupt_on_signals; interrupt_on_signals(); import torch"
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "NUMBER": str(int(number)), "PYTHONPATH": paths}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (128 + number, "", "polyinr: interrupted\n")
