"""The live display: what it shows, what it keeps quiet about, and that it lives with what others print."""

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from polyinr_cli import console
from polyinr_cli import train_display as live
from polyinr_cli.train_display import Display, thousands
from polyinr_core.training.logging import duration

STAGES = [(32, 200_000), (64, 100_000)]
LOSSES = {"loss_g": 2.99, "loss_d": 0.332, "d_sign_fake": -0.78, "d_sign_real": 0.94, "img_per_sec": 6.76}
EVENT = {"kimg": 12.3, "stage": 0, "resolution": 32, **LOSSES}


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the display sees; set its only element."""
    moment = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    return moment


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 60 columns, for a test to put in place of stderr (pytest takes it back before the test)."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "24")
    return Terminal()


def shown(display: Display, *, width: int = 80) -> list[str]:
    """The lines that a display draws."""
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(display.table())
    return [line.rstrip() for line in console.export_text().splitlines()]


def screen(text: str, *, width: int = 60, height: int = 100) -> list[str]:
    """What a terminal shows after this text: lines, without colors."""
    rows, row, column = [[" "] * width for _ in range(height)], 0, 0
    for code, kind, char in re.findall(r"\x1b\[([?\d;]*)([A-Za-z])|([^\x1b])", text):
        if kind == "A":
            row = max(0, row - int(code or 1))
        elif kind == "K":
            assert code == "2"
            rows[row] = [" "] * width
        elif kind:
            assert kind in "mhl", f"{code}{kind}"
        elif char == "\r":
            column = 0
        elif char == "\n":
            row, column = row + 1, 0
        else:
            assert column < width, "a line is wider than the terminal"
            rows[row][column] = char
            column += 1
    lines = ["".join(line).rstrip() for line in rows]
    return lines[: max(i for i, line in enumerate(lines) if line) + 1]


def display(**options: object) -> Display:
    settings = {"metric": "fd-lite2", "deadline": None, "quiet": False, "console": None, **options}
    return Display(Path("runs/cats"), STAGES, **settings)  # type: ignore[arg-type]


def test_it_shows_where_the_run_stands(now: list[float]) -> None:
    show = display(deadline=1000.0 + 3600)
    show.update(12_000, stage=0, images=12_000)
    now[0] += 100
    show.update(13_000, stage=0, images=13_000)
    show.event({**EVENT, "cpu_mem_mib": 612.3, "gpu_mem_mib": 812.0})
    show.event({**EVENT, "kimg": 10, "fd-lite2": 475.04})
    show.event({**EVENT, "kimg": 12, "fd-lite2": 500.0})
    lines = shown(show)
    assert [line.strip() for line in lines[1:]] == [
        "stage    1 of 2, 32 px: 13.0 of 200 kimg, 6%, 5 h 11 min left",
        "run      13.0 of 300 kimg, 4%, more than 7 h 58 min left",
        "stops    in 58 min (--max-time)",
        "speed    6.76 images/s",
        "losses   generator 2.990, discriminator 0.332",
        "signs    fakes -0.78, reals +0.94",
        "fd-lite2 500 at 12 kimg, best 475.04 at 10",
        "memory   612 MiB, 812 MiB peak on the GPU",
        "folder   runs/cats",
    ]
    assert "━" in lines[0]


def test_the_last_stage_knows_the_whole_time(now: list[float]) -> None:
    """Even when the stage before it ended early."""
    show = display()
    show.update(150_000, stage=0, images=150_000)
    show.update(150_100, stage=1, images=100)
    now[0] += 10
    show.update(150_200, stage=1, images=200)
    assert shown(show)[1:3] == [
        "stage  2 of 2, 64 px: 0.2 of 100 kimg, 0%, 2 h 46 min left",
        "run    150.2 of 250 kimg, 60%, 2 h 46 min left",
    ]


def test_a_resumed_run_is_shown_where_it_stands() -> None:
    show = display()
    show.event({"kimg": 210.0, "stage": 1, "resolution": 64, "resumed": True})
    assert shown(show)[1:3] == ["stage  2 of 2, 64 px: 10.0 of 100 kimg, 10%", "run    210.0 of 300 kimg, 70%"]


def test_distances_of_two_stages_are_not_compared() -> None:
    show = display()
    show.event({"kimg": 200, "stage": 0, "fd-lite2": 100.0})
    show.event({"kimg": 200, "stage": 1, "loss_d": 1.0})
    assert not any("best" in line for line in shown(show))
    show.event({"kimg": 210, "stage": 1, "fd-lite2": 300.0})
    assert "fd-lite2 300 at 210 kimg" in shown(show)  # one measurement is no best
    show.event({"kimg": 220, "stage": 1, "fd-lite2": 310.0})
    assert "fd-lite2 310 at 220 kimg, best 300 at 210" in shown(show)


def test_the_untrained_model_is_never_the_best() -> None:
    show = display()
    for kimg, distance in ((0, 10.0), (4, 300.0), (8, 310.0)):
        show.event({"kimg": kimg, "stage": 0, "fd-lite2": distance})
    assert "fd-lite2 310 at 8 kimg, best 300 at 4" in shown(show)


def test_lines_where_stderr_is_a_file(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """The first after half a minute, then after half of the time so far, at most five minutes."""
    show = display()
    for seconds in range(0, 1200, 10):
        now[0] = 1000.0 + seconds
        show.update(10 * seconds, stage=0, images=10 * seconds)
        show.event({**EVENT, "kimg": seconds / 100})
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == (
        "polyinr: stage 1 of 2, 32 px; 0.6 of 300 kimg, 0%, more than 8 h 19 min left; 6.76 images/s; "
        "generator 2.990, discriminator 0.332"
    )
    assert 6 <= len(lines) <= 9
    quiet = Display(Path("run"), STAGES, metric=None, deadline=None, quiet=True, console=None)
    now[0] += 1000
    quiet.update(10, stage=0, images=10)
    assert capsys.readouterr().err == ""


def test_progress_where_stderr_is_a_file(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        with console.progress("preparing", quiet=quiet) as progress:
            for done in range(101):
                now[0] += 1
                progress(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "polyinr: preparing: 29%, about 73 s left",
        "polyinr: preparing: 59%, about 42 s left",
        "polyinr: preparing: 89%, about 11 s left",
    ]


def test_an_estimate_comes_with_the_first_step_of_a_long_evaluation(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for total in (61, 10):
        with console.progress_bars(estimate=True) as bar:
            move = bar("features of fakes")
            for done in range(4):
                move(done, total)
                now[0] += 1
    assert capsys.readouterr().err == "polyinr: features of fakes: 2%, about 60 s left\n"


def test_numbers_that_are_none_are_left_out() -> None:
    show = display()
    show.event({**EVENT, "loss_g": None, "fd-lite2": None})
    assert "losses discriminator 0.332" in shown(show)


@pytest.mark.parametrize("width", [20, 40, 60, 61, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    show = display()
    show.folder = Path("runs") / ("long" * 30)
    show.update(0, stage=0, images=0)
    show.event({**EVENT, "fd-lite2": 475.0, "warning": "w" * 100 + ": do this"})
    lines = shown(show, width=width)
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).split())
    assert "long" * 30 in text
    assert "w" * 100 in text


def test_messages_and_warnings_come_above(stderr: Terminal, now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    with live.display(Path("runs/a"), STAGES) as show:
        for step in range(6):
            now[0] += 1
            show.update(16 * step, stage=0, images=16 * step)
            show.event({**EVENT, "kimg": step / 10})
            if step == 2:
                show.event({"message": "a [bold]state[/bold] is damaged"})
            if step == 3:
                show.event({**EVENT, "warning": "the discriminator is right: try this"})
                print("somebody else", file=sys.stderr)
    assert sys.stderr is stderr
    lines = screen(stderr.getvalue())
    assert lines[:3] == [
        "polyinr: a [bold]state[/bold] is damaged",
        "polyinr: warning: the discriminator is right: try this",
        "somebody else",
    ]
    assert "━" in lines[3]
    assert [line.split()[0] for line in lines[4:]] == [
        "stage",
        "run",
        "speed",
        "losses",
        "signs",
        "warning",
        "folder",
    ]
    assert "0.1 of 300 kimg" in lines[5]
    assert lines[-2] == "warning the discriminator is right"
    assert "\x1b[?25h" in stderr.getvalue()  # the cursor is back


def test_log_messages_come_above(stderr: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    handler = logging.StreamHandler(stderr)
    logging.getLogger().addHandler(handler)
    try:
        with live.display(Path("runs/a"), STAGES) as show:
            show.refresh()
            logging.getLogger("polyinr_core").warning("from afar")
            show.refresh()
        assert handler.stream is stderr
    finally:
        logging.getLogger().removeHandler(handler)
    assert screen(stderr.getvalue())[0] == "from afar"


def test_an_error_leaves_the_terminal_as_it_was(stderr: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    with pytest.raises(KeyError), live.display(Path("runs/a"), STAGES) as show:
        show.event({"fd-lite2": 1.0, "stage": 0}["absent"])
    assert sys.stderr is stderr
    assert stderr.getvalue().rstrip().endswith("\x1b[?25h")


def test_a_terminal_that_goes_away_stops_nothing(stderr: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(text: str) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", stderr)
    with live.display(Path("runs/a"), STAGES) as show:
        monkeypatch.setattr(stderr, "write", gone)
        show.event({**EVENT, "warning": "unheard"})
        show.event(EVENT)
        show.update(16, stage=0, images=16)
    assert sys.stderr is stderr


def test_no_color_is_honored(stderr: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", stderr)
    with live.display(Path("runs/a"), STAGES) as show:
        show.event({**EVENT, "warning": "yellow"})
    colors = re.findall(r"\x1b\[([\d;]*)m", stderr.getvalue())
    assert not [code for code in colors if re.search(r"(^|;)[34]\d(;|$)", code)]


@pytest.mark.parametrize("reason", ["no terminal", "quiet", "json on the same terminal"])
def test_nothing_is_drawn(reason: str, stderr: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    if reason == "no terminal":
        stderr = io.StringIO()  # type: ignore[assignment]
    monkeypatch.setattr(sys, "stderr", stderr)
    quiet, as_json = reason == "quiet", reason == "json on the same terminal"
    with live.display(Path("runs/a"), STAGES, quiet=quiet, as_json=as_json) as show:
        show.event(EVENT)
        show.update(16, stage=0, images=16)
        show.event({"message": "damaged"})
        show.event({**EVENT, "warning": "too sure"})
    expected = "" if quiet else "polyinr: damaged\npolyinr: warning: too sure\n"
    assert stderr.getvalue() == expected


def test_json_in_a_pipe_leaves_the_display(stderr: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    monkeypatch.setattr(sys, "stderr", stderr)
    with live.display(Path("runs/a"), STAGES, as_json=True) as show:
        show.event(EVENT)
    assert json.loads(pipe.getvalue()) == EVENT
    assert "losses" in stderr.getvalue()


def test_times_are_in_two_units() -> None:
    durations = [duration(seconds) for seconds in (-5, 0, 59.6, 61, 3600, 3600 * 5 + 720, 86400 * 3 + 3600 * 4, 1e5)]
    assert durations == ["0 s", "0 s", "1 min", "1 min", "1 h", "5 h 12 min", "3 d 4 h", "1 d 3 h"]


def test_small_runs_are_counted_by_the_image() -> None:
    assert thousands(4, 12) == "0.004 of 0.012 kimg, 33%"
    assert thousands(0, 0) == "0.000 of 0 kimg, 0%"


def test_on_a_real_terminal(tmp_path: Path) -> None:
    """A process of its own, stderr a terminal of 60 columns, stdout a pipe; interrupted by Ctrl-C."""
    program = (
        "import json, os, signal, sys\n"
        "from pathlib import Path\n"
        "from polyinr_cli import console as streams\n"
        "from polyinr_cli import train_display as live\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may ignore it\n"
        "try:\n"
        "    with live.display(Path('runs/a'), [(32, 1000)], as_json=True) as show:\n"
        "        for seen in range(0, 500, 100):\n"
        "            event = {'kimg': seen / 1000, 'stage': 0, 'loss_d': 0.5}\n"
        "            show.update(seen, stage=0, images=seen)\n"
        "            show.event(event)\n"
        "            streams.say(f'said at {seen}')\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    streams.say('interrupted')\n"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=slave, env=environment, cwd=tmp_path
    )
    os.close(slave)
    assert process.stdout is not None
    written = b""
    while True:
        try:
            written += os.read(master, 100_000)
        except OSError:  # the other side is closed
            break
    stdout = process.stdout.read()
    process.stdout.close()
    os.close(master)
    assert process.wait() == 0
    assert [json.loads(line)["kimg"] for line in stdout.splitlines()] == [0.0, 0.1, 0.2, 0.3, 0.4]
    lines = screen(written.decode())
    assert lines[:5] == [f"said at {seen}" for seen in range(0, 500, 100)]
    assert lines[6].startswith("stage  1 of 1, 32 px: 0.400 of 1 kimg, 40%")
    assert lines[-1] == "interrupted"
    assert sum("folder" in line for line in lines) == 1
