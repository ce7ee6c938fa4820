"""The standard streams: the terminal guard, progress, closed pipes."""

import io
import os
import pty
import sys
from pathlib import Path

import numpy as np
import pytest
from bad_files import archive
from conftest import Run, refused
from PIL import Image

from polyinr_cli import console as streams
from polyinr_cli.main import outcome
from polyinr_core.errors import RequestError


@pytest.fixture
def terminal():
    """A pseudo-terminal: (a text stream that is one, a function that returns what was written to it)."""
    master, slave = pty.openpty()
    stream = open(slave, "w", encoding="utf-8")  # noqa: SIM115

    def written() -> str:
        stream.flush()
        os.set_blocking(master, False)
        shown = b""
        try:
            while True:
                shown += os.read(master, 100_000)
        except BlockingIOError:
            return shown.decode()

    yield stream, written
    stream.close()
    os.close(master)


def test_bytes_do_not_go_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, terminal, tiny_checkpoint: Path
):
    stream, written = terminal
    monkeypatch.setattr(sys, "stdout", stream)
    assert outcome(["sample", "--seeds", "1", "-m", str(tiny_checkpoint), "-o", "-"]) == 2
    assert written() == ""
    error = capsys.readouterr().err
    assert "terminal" in error
    assert len(error.splitlines()) == 1


def test_bytes_are_not_typed_in(monkeypatch: pytest.MonkeyPatch, terminal):
    monkeypatch.setattr(sys, "stdin", terminal[0])
    with pytest.raises(RequestError, match="stdin is empty"):
        streams.binary_stdin()


def test_progress_moves_on_a_terminal(monkeypatch: pytest.MonkeyPatch, terminal):
    stream, written = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with streams.progress("drawing [bold]x") as move:
        move(1, 2)
        move(2, 2)
    shown = written()
    assert "drawing [bold]x" in shown
    assert "100%" in shown
    streams.say("hello")
    assert "hello" in written()


def test_bars_stand_below_each_other(monkeypatch: pytest.MonkeyPatch, terminal):
    """Each frame shows both, whichever moved last: two displays overwrote each other on one line."""
    stream, written = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with streams.progress_bars() as bar:
        first = bar("reals")
        first(2, 2)
        second = bar("fakes")
        second(1, 2)
        first(2, 2)
    last = written().rpartition("reals")[2]
    assert "100%" in last.partition("fakes")[0]
    assert "\n" in last.partition("fakes")[0]
    assert "50%" in last.partition("fakes")[2]


def test_progress_leaves_stdout_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, terminal):
    """JSON lines written while a bar moves reach stdout, not the terminal."""
    stream, written = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with streams.progress("drawing") as move:
        move(1, 2)
        streams.json_line({"a": 1})
        streams.say("a word")
    assert capsys.readouterr().out == '{"a": 1}\n'
    assert "a word" in written()


def test_no_colors_where_none_are_wanted(monkeypatch: pytest.MonkeyPatch, terminal):
    stream, written = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    with streams.progress("drawing") as move:
        move(1, 2)
    assert "\x1b[3" not in written().replace("\x1b[3F", "")


def test_progress_and_chatter_stay_away_from_a_pipe_and_when_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, terminal
):
    with streams.progress("drawing") as move:
        move(1, 2)
    streams.say("chatter")
    assert capsys.readouterr().err == ""
    streams.say("important", always=True)
    assert capsys.readouterr().err == "important\n"
    monkeypatch.setattr(sys, "stderr", terminal[0])
    with streams.progress("drawing", quiet=True) as move:
        move(1, 2)
    streams.say("chatter", quiet=True, always=True)
    assert terminal[1]() == ""


def test_sample_reports_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, terminal, tiny_checkpoint: Path):
    monkeypatch.setattr(sys, "stderr", terminal[0])
    arguments = ["sample", "--seeds", "0-1", "-m", str(tiny_checkpoint), "-o", f"{tmp_path}/out/"]
    assert outcome(arguments) == 0
    shown = terminal[1]()
    assert "rendering" in shown
    assert "2 images of 16x16" in shown
    assert outcome([*arguments, "--overwrite", "-q"]) == 0
    assert terminal[1]() == ""


def test_a_pipe_closed_by_its_reader(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tiny_checkpoint: Path
):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert outcome(["sample", "--seeds", "1", "-m", str(tiny_checkpoint), "--res", "200", "-o", "-"]) == 1
    assert capsys.readouterr().err == ""


def test_nobody_reads_the_messages(monkeypatch: pytest.MonkeyPatch):
    """A closed stderr is no reason to stop."""
    closed = io.StringIO()
    closed.close()
    for stderr in (closed, None):
        monkeypatch.setattr(sys, "stderr", stderr)
        streams.say("hello", always=True)
        with streams.progress("x") as move:
            move(1, 1)


def test_lines_do_not_steer_the_terminal(capsys: pytest.CaptureFixture):
    streams.line("a\x1b[31mb\nc\x9b")
    streams.json_line({"name": "\x1b[31m\x9b猫"})
    assert capsys.readouterr().out == 'a?[31mb?c?\n{"name": "\\u001b[31m\\u009b\\u732b"}\n'


def test_two_payloads(polyinr: Run):
    with pytest.raises(RequestError, match="--json"):
        streams.refuse_two_payloads("-", as_json=True)
    streams.refuse_two_payloads("x", as_json=True)
    streams.refuse_two_payloads(Path("-"), as_json=False)


def test_a_run_whose_json_nobody_reads_any_more_is_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    archive(Path("data.zip"))
    reader, writer = os.pipe()
    os.close(reader)
    train = "train data.zip --preset tiny --stages 8:1 --batch 4 --run-dir run --json"
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert outcome(train.split()) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "polyinr: training state saved to run; run the same command again to resume"
    assert Path("run/state/000000000004.json").exists()


def test_the_format_of_stdout(polyinr: Run, tiny_checkpoint: Path) -> None:
    """Each is what the file of its suffix holds; raw pixels are those of the PNG."""
    common = ("sample", "--seeds", "3-4", "-m", tiny_checkpoint, "--precision", "float32", "--size", "9x7")
    for name in ("x.npy", "out/"):
        assert polyinr(*common, "-o", name).code == 0
    piped = {name: polyinr(*common, "-o", "-", "--format", name) for name in ("png", "npy", "rgb24")}
    assert [ran.code for ran in piped.values()] == [0, 0, 0]
    assert piped["png"].stdout == polyinr(*common, "-o", "-").stdout
    assert np.array_equal(np.load(io.BytesIO(piped["npy"].stdout)), np.load("x.npy"))
    raw = np.frombuffer(piped["rgb24"].stdout, dtype=np.uint8).reshape(2, 7, 9, 3)
    for index, seed in enumerate((3, 4)):
        assert np.array_equal(raw[index], np.asarray(Image.open(f"out/seed000{seed}.png")))
    latents = polyinr("sample", "--seeds", "3", "-m", tiny_checkpoint, "-o", "-", "--format", "latents")
    drawn = polyinr(
        *("sample", "--latents", "-", "-m", tiny_checkpoint, "--precision", "float32", "--size", "9x7", "-o", "y.png"),
        stdin=latents.stdout,
    )
    assert drawn.code == 0, drawn.stderr
    assert np.array_equal(raw[0], np.asarray(Image.open("y.png")))


def test_formats_of_other_commands(polyinr: Run, tiny_checkpoint: Path) -> None:
    model = ("-m", tiny_checkpoint)
    for command in (("mix", "1", "5", "--levels", "1"), ("interpolate", "1", "5", "--frames", "2")):
        assert polyinr(*command, *model, "-o", "x.png", "--overwrite").code == 0
        ran = polyinr(*command, *model, "-o", "-", "--format", "png")
        assert ran.code == 0, ran.stderr
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(ran.stdout))), np.asarray(Image.open("x.png")))
    ran = polyinr("sample", "--seeds", "1", *model, "-o", "y.png", "--format", "png")
    refused(ran, "--format is for -o -", code=2)
    ran = polyinr("sample", "--seeds", "1", *model, "--bits", "16", "-o", "-", "--format", "rgb24")
    refused(ran, "--bits 16", "rgb24", code=2)
