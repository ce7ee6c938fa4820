"""The command as a whole: help, version, verbosity, and every failure as one line and an exit code."""

import errno
import logging
import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from conftest import Run, refused, small_checkpoint

from polyinr_cli import main
from polyinr_core.errors import PolyinrError, RequestError

info_module = import_module("polyinr_cli.commands.info")
HELP = """
import sys
from polyinr_cli.main import outcome
code = outcome(sys.argv[1:])
heavy = {"torch", "numpy", "PIL", "torchvision", "timm"} & set(sys.modules)
sys.exit(f"loads {heavy}" if heavy else code)
"""


def processor_seconds(code: str, *arguments: str) -> float:
    """Run Python code without a word on stderr; return the processor time it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (ran.returncode, ran.stderr) == (0, "")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("command", ["", *main.COMMANDS])
def test_help_is_light_and_quick(command: str):
    """No torch, and under half a second of the processor, on a machine that loads Typer alone in 0.15 s.

    A smaller or busier machine may be slower in proportion; one quick try is enough.
    """
    arguments = [*command.split(), "--help"]
    tries = ((processor_seconds("import typer"), processor_seconds(HELP, *arguments)) for _ in range(6))
    assert any(spent < 0.5 * max(1.0, typer_alone / 0.15) for typer_alone, spent in tries)


def test_every_command_file_is_a_command():
    """A file of the commands' package is a command if it has a function of its own name."""
    files = {path.stem: path.read_text() for path in (Path(main.__file__).parent / "commands").glob("*.py")}
    commands = {name for name, text in files.items() if f"\ndef {name}(" in text}
    assert commands == set(main.COMMANDS)


def test_version(polyinr: Run):
    from importlib.metadata import version

    assert polyinr("--version").stdout.decode() == f"polyinr {version('polyinr')}\n"


def test_help_is_plain(polyinr: Run):
    assert b"\x1b" not in polyinr("sample", "--help").stdout


def test_no_command_shows_the_help(polyinr: Run):
    assert polyinr() == polyinr("--help")
    assert b"sample" in polyinr().stdout


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PolyinrError("one\n two\x1b[31m"), 1, "one two [31m"),
        (RequestError("odd"), 2, "odd"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
        (MemoryError(), 1, "out of memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            1,
            "out of memory",
        ),
        (OSError(errno.ENOSPC, "No space", "x.png"), 1, "x.png: no space left"),
        (OSError(errno.EIO, "Input/output error"), 1, "input/output error"),
        (ZeroDivisionError("oh"), 1, "ZeroDivisionError: oh (internal error; rerun with -v"),
        (RecursionError("deep"), 1, "RecursionError"),
    ],
)
def test_every_failure_is_one_line(
    polyinr: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(info_module, "_facts_of", fail)
    refused(polyinr("info", "x"), words, code=code)


@pytest.mark.parametrize("arguments", [("-v", "info", "x"), ("info", "x", "-v")])
def test_verbose_shows_the_traceback(polyinr: Run, arguments: tuple[str, ...]):
    ran = polyinr(*arguments)
    assert ran.code == 1
    assert "Traceback" in ran.stderr
    assert ran.stderr.splitlines()[-1] == "polyinr: x: no such file or folder"
    assert "Traceback" not in polyinr("info", "x").stderr


def test_an_exit_code_of_a_command_is_kept(polyinr: Run, monkeypatch: pytest.MonkeyPatch):
    def leave(*_: object, **__: object) -> None:
        raise typer.Exit(3)

    monkeypatch.setattr(info_module, "_facts_of", leave)
    assert polyinr("info", "x") == type(polyinr("info", "x"))(3, b"", "")


def test_chatter_of_libraries_stays_away(
    polyinr: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def chat(*_: object, **__: object) -> dict:
        for name in ("py.warnings", "tifffile", "PIL.Image"):
            logging.getLogger(name).error("chatter")
        logging.getLogger("polyinr_core.x").warning("ours")
        return {"kind": "x"}

    monkeypatch.setattr(info_module, "_facts_of", chat)
    assert polyinr("info", "x").stderr == ""
    assert caplog.messages == ["ours"]


def test_quiet_keeps_warnings_away(polyinr: Run, tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture):
    polyinr("sample", "--seeds", "1", "-m", tiny_checkpoint, "-o", "x.safetensors")
    other = small_checkpoint(Path("other.safetensors"), resolution=17)
    polyinr("sample", "--latents", "x.safetensors", "-m", other, "-o", "x.png", "-q")
    assert caplog.text == ""


def test_verbose_says_what_computed_and_how_long(polyinr: Run, tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture):
    line = ("sample", "--seeds", "1-2", "-m", tiny_checkpoint, "--precision", "float32", "--device", "cpu")
    assert polyinr(*line, "-o", "x.png").code == 0
    assert caplog.text == ""
    assert polyinr(*line, "-o", "y.png", "-v").code == 0
    assert "tiny.safetensors (SHA-256 " in caplog.text
    assert "on cpu in float32" in caplog.text
    assert "2 images in " in caplog.text


@pytest.mark.parametrize(
    "value", [("--grid", "-0.25:1.25"), ("--grid=-0.25:1.25",), ("--psi", "-0.5"), ("--psi=-0.5",)]
)
def test_values_may_begin_with_a_minus(polyinr: Run, tiny_checkpoint: Path, value: tuple[str, ...]):
    assert polyinr("sample", "--seeds", "1", "-m", tiny_checkpoint, *value, "-o", "x.png").code == 0


def run_into(command: str, *arguments: str | Path) -> subprocess.CompletedProcess:
    """Run the console script in a shell: {} in `command` is polyinr and its arguments."""
    script = f"{sys.executable} -c 'from polyinr_cli.main import run; run()'"
    return subprocess.run(
        ["bash", "-c", command.format(f'{script} "$@"'), "bash", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def note_file(polyinr: Run, tiny_checkpoint: Path) -> Path:
    polyinr("sample", "--seeds", "1", "-m", tiny_checkpoint, "-o", "x.png")
    return Path("x.png")


def test_a_closed_pipe_ends_quietly(note_file: Path):
    ran = run_into("set -o pipefail; {} | true; sleep 0.1", "info", note_file, "--json")
    assert ran.stderr == ""
    ran = run_into("( {}; echo $? >&2 ) | sleep 0", "info", note_file)
    assert ran.stderr in ("1\n", "0\n")  # 0 if the reader was slower to leave than we were to write


def test_a_full_stdout_is_one_line(note_file: Path):
    ran = run_into("{} >/dev/full", "info", note_file, "--json")
    assert (ran.returncode, ran.stderr) == (
        1,
        "polyinr: stdout: no space left on the disk; free some and run again\n",
    )


def test_a_closed_stdout_is_one_line(note_file: Path):
    ran = run_into("{} >&-", "info", note_file, "--json")
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)


def test_ctrl_c_is_130(note_file: Path):
    """A SIGINT while the command reads a pipe, such as `<(command)` opens, that nobody fills."""
    pipe, filler = os.pipe()
    code = "from polyinr_cli.main import run; print('ready', flush=True); run()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "info", f"/dev/fd/{pipe}"],
        pass_fds=[pipe],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    import signal
    import time

    time.sleep(1.5)  # until it waits for the pipe
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, "polyinr: interrupted\n")
    os.close(pipe)
    os.close(filler)


@pytest.mark.parametrize(
    "command",
    [
        *(f"info {name}" for name in ("pipe.png", "pipe.zip", "pipe.tar", "pipe")),
        *(f"prepare {name} -o a.zip --res 8" for name in ("pipe.png", "pipe.zip", "pipe.tar")),
        *(f"evaluate --real {name} --fake . --metrics fd-lite2" for name in ("pipe.zip", "pipe.tar")),
        "evaluate --real pipe.safetensors --fake . --metrics fd-lite2",
        "evaluate --real pipe.npz --fake . --metrics fd-lite2",
        "train pipe.zip --dry-run",
        "train pipe.tar --dry-run",
        "train --init-from pipe.safetensors --dry-run",
        "sample --seeds 1 -m pipe.safetensors -o x.png",
        "sample --latents pipe.safetensors -o x.png",
        "invert pipe.png -o x.safetensors",
        "directions pipe.safetensors --seeds 1 -o x.png",
        "convert pipe.pkl -o m.safetensors",
        "table pipe.json",
    ],
)
def test_a_named_pipe_is_refused_and_not_waited_for(polyinr: Run, command: str):
    (pipe,) = (word for word in command.split() if word.startswith("pipe"))
    os.mkfifo(pipe)
    ran = polyinr(*command.split())
    assert ran.code == 1
    assert f"{pipe}: " in ran.stderr.splitlines()[-1]
    assert "not a regular file" in ran.stderr.splitlines()[-1]
    assert os.listdir() == [pipe]
