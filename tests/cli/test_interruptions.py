"""Signals to whole commands, at many moments: the right exit code, one line at most, nothing left behind."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyinr_cli import main
from polyinr_cli.runtime import interruption

COMMAND = [sys.executable, "-m", "polyinr_cli"]
STARTED = 0.2  # seconds: until then Python itself begins, which we cannot make silent
LONG = ["--seeds", "0-99999", "-o"]
COMMANDS = {
    "folder": ["sample", *LONG, "out/"],
    "new folder": ["sample", "--seeds", "0-9", "--res", "2048", "-o", "new/out/x.png"],
    "zoomable": ["sample", "--seeds", "0", "--res", "30000", "-o", "x.dzi"],
    "array": ["sample", *LONG, "x.npy"],
    "animation": ["interpolate", "1", "2", "--frames", "9999", "-o", "x.gif"],
    "gallery": ["gallery", "--res", "512", "-o", "site"],
}
NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def started(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[list[subprocess.Popen]]:
    """A place for processes, which are killed at the end."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        process.kill()


def start(folder: Path, model: Path, arguments: list[str]) -> subprocess.Popen:
    """Start a command whose signals are as a shell gives them."""
    return subprocess.Popen(
        [*COMMAND, *arguments, "-m", str(model)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in NUMBERS],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_any_moment(tmp_path: Path, tiny_checkpoint: Path, started: list, name: str) -> None:
    rng = random.Random(name)
    for turn in range(9):
        folder = tmp_path / str(turn)
        folder.mkdir()
        process = start(folder, tiny_checkpoint, COMMANDS[name])
        started.append(process)
        number = NUMBERS[turn % 3]
        time.sleep(STARTED + rng.uniform(0, 1) * turn)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        assert process.returncode in (128 + number, -number), said
        assert said in ("", "polyinr: interrupted\n")
        left = [path for path in folder.rglob("*") if ".part" in path.name]
        assert not left
        whole = [path for path in folder.rglob("*") if path.is_file()]
        assert all(path.parent.name == "out" and path.suffix == ".png" for path in whole)
        if name != "folder":
            assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Under nohup, and in the background of a script."""
    arguments = ["sample", "--seeds", "0-2", "-o", "out/"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "-m", str(tiny_checkpoint)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in NUMBERS],
    )
    for number in NUMBERS:
        time.sleep(0.3)
        process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize(("number", "code"), [(None, 130), *((number, 128 + number) for number in NUMBERS)])
def test_the_exit_code_names_the_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int | None, code: int
) -> None:
    def interrupted(**_: object) -> None:
        if number is not None:
            interruption.record(number)
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "load", lambda name: interrupted())
    assert main.outcome(["info", "x"]) == code
    assert capsys.readouterr().err == "polyinr: interrupted\n"
    interruption.reset()
