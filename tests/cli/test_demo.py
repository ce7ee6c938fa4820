"""`polyinr demo`: which commands it runs, with which options, and what becomes of their failure."""

import subprocess
import sys

import pytest
from conftest import Run
from PIL import Image


@pytest.fixture
def ran_commands(monkeypatch: pytest.MonkeyPatch) -> tuple[list[list[str]], dict[str, int]]:
    """The command lines that would be run, and the exit code that each command shall give (0)."""
    lines: list[list[str]] = []
    codes: dict[str, int] = {}

    def start(command: list[str]) -> subprocess.Popen:
        assert command[1:3] == ["-m", "polyinr_cli"]
        lines.append(command[3:])
        if command[3] == "sample":
            shade = 60 * len(lines)
            Image.new("RGB", (80, 40), (shade, shade, shade)).save(command[command.index("-o") + 1])
        return popen([sys.executable, "-c", f"raise SystemExit({codes.get(command[3], 0)})"])

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    return lines, codes


def test_the_main_job_is_shown_and_said(polyinr: Run, ran_commands):
    ran = polyinr("demo", "-o", "my demo", "--max-time", "9s")
    lines, _ = ran_commands
    assert (ran.code, ran.stdout) == (0, b"")
    assert [line[0] for line in lines] == ["prepare", "train", "sample", "sample", "sample", "sample"]
    assert lines[1][-2:] == ["--max-time", "9s"]
    assert [line[line.index("-m") + 1] for line in lines[2:]] == ["my demo/run", *["bundled"] * 3]
    assert "[2] Train for 9s: expect " in ran.stderr
    assert "polyinr sample --overwrite -m 'my demo/run'" in ran.stderr
    assert "polyinr info 'my demo/large.png'" in ran.stderr


def test_the_fresh_model_is_shown_beside_the_bundled_one(polyinr: Run, ran_commands):
    """With the same options but the model and the file; then in one image, below their captions."""
    assert polyinr("demo", "-o", "here").code == 0
    trained, bundled = ran_commands[0][2:4]
    assert [(a, b) for a, b in zip(trained, bundled, strict=True) if a != b] == [
        ("here/run", "bundled"),
        ("here/trained.png", "here/bundled.png"),
    ]
    beside = Image.open("here/beside.png")
    assert beside.size == (80 + 16 + 80, 24 + 40)
    assert [beside.getpixel((x, 44))[0] for x in (40, 88, 136)] == [180, 255, 240]


def test_quiet_is_passed_on(polyinr: Run, ran_commands):
    assert polyinr("demo", "-q").stderr == ""
    assert all(line[-1] == "-q" for line in ran_commands[0])


@pytest.mark.parametrize(("code", "said"), [(1, ""), (2, ""), (130, "polyinr: interrupted\n")])
def test_a_command_that_fails_ends_it_with_its_own_message(polyinr: Run, ran_commands, code: int, said: str):
    lines, codes = ran_commands
    codes["train"] = code
    ran = polyinr("demo", "-q")
    assert (ran.code, ran.stderr, len(lines)) == (code, said, 2)
