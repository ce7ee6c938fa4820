"""`polyinr demo`: which commands it runs, with which options, and what becomes of their failure."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run


@pytest.fixture
def ran_commands(monkeypatch: pytest.MonkeyPatch) -> tuple[list[list[str]], dict[str, int]]:
    """The command lines that would be run, and the exit code that each command shall give (0)."""
    lines: list[list[str]] = []
    codes: dict[str, int] = {}

    def start(command: list[str]) -> subprocess.Popen:
        assert command[1:3] == ["-m", "polyinr_cli"]
        lines.append(command[3:])
        return popen([sys.executable, "-c", f"raise SystemExit({codes.get(command[3], 0)})"])

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    return lines, codes


def test_the_main_job_is_shown_and_said(polyinr: Run, ran_commands):
    ran = polyinr("demo", "-o", "my demo", "--max-time", "9s")
    lines, _ = ran_commands
    assert (ran.code, ran.stdout) == (0, b"")
    assert [line[0] for line in lines] == ["prepare", "train", "sample", "sample", "sample"]
    assert lines[1][-2:] == ["--max-time", "9s"]
    assert all("my demo/run" in line for line in lines[1:])
    assert "[5] polyinr sample --overwrite -m 'my demo/run'" in ran.stderr
    assert "polyinr info 'my demo/large.png'" in ran.stderr
    assert Path("my demo").is_dir()


def test_quiet_is_passed_on(polyinr: Run, ran_commands):
    assert polyinr("demo", "-q").stderr == ""
    assert all(line[-1] == "-q" for line in ran_commands[0])


@pytest.mark.parametrize(("code", "said"), [(1, ""), (2, ""), (130, "polyinr: interrupted\n")])
def test_a_command_that_fails_ends_it_with_its_own_message(polyinr: Run, ran_commands, code: int, said: str):
    lines, codes = ran_commands
    codes["train"] = code
    ran = polyinr("demo", "-q")
    assert (ran.code, ran.stderr, len(lines)) == (code, said, 2)
