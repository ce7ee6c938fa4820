"""What an installation has beside the commands: shell completion, manual pages, a container."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from conftest import Run

from polyinr_cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
COMPLETE = """
import sys
from polyinr_cli.main import outcome
try:
    code = outcome([])
finally:
    heavy = {"torch", "numpy", "PIL"} & set(sys.modules)
    assert not heavy, heavy
"""


def completed(words: str) -> list[str]:
    """Return what bash would offer for the last word; nothing heavy is loaded, nothing said."""
    count = len(words.split(" "))
    environment = {
        **os.environ,
        "_POLYINR_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(count - 1),
    }
    ran = subprocess.run([sys.executable, "-c", COMPLETE], env=environment, capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    return ran.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("polyinr ", list(COMMANDS)),
        ("polyinr extra", ["extrapolate"]),
        ("polyinr train --st", ["--stages", "--state-every"]),
        ("polyinr sample --precision b", ["bfloat16"]),
    ],
)
def test_the_shell_completes(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


def test_completion_is_installed_for_bash(tmp_path: Path) -> None:
    """Into the home folder, by --install-completion, as bash runs it; the script defines a completion of polyinr."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    code = "from polyinr_cli.main import run; run()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "--install-completion", "bash"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (script,) = (path for path in tmp_path.rglob("*") if path.name == "polyinr.sh")
    shown = subprocess.run(
        ["bash", "--norc", "-c", f'source "{script}"; complete -p polyinr'], capture_output=True, text=True, check=True
    )
    assert "polyinr" in shown.stdout


def script_of_docs(name: str) -> ModuleType:
    """Import a script of docs/."""
    spec = spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_has_a_manual_page(polyinr: Run) -> None:
    """With each of its options, and without a warning of groff."""
    pages = script_of_docs("write_man").pages()
    assert pages.keys() == {"polyinr.1", *(f"polyinr-{name}.1" for name in COMMANDS)}
    for name in COMMANDS:
        text = pages[f"polyinr-{name}.1"].replace("\\-", "-")
        options = set(re.findall(r"^  .*?(--[a-z][\w-]+)", polyinr(name, "--help").stdout.decode(), re.MULTILINE))
        assert options
        assert options <= set(re.findall(r"--[a-z][\w-]+", text)), name
    if shutil.which("groff"):
        for name, text in pages.items():
            command = ["groff", "-man", "-ww", "-Tutf8", "-z"]
            ran = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
            assert ran.stderr == b"", name


def test_the_container_gets_what_it_copies() -> None:
    """Every file that the Dockerfile copies exists and is not ignored; the base and PyTorch's index are arguments."""
    text = (ROOT / "Dockerfile").read_text()
    assert {"BASE", "TORCH_INDEX", "EXTRAS"} == set(re.findall(r"^ARG (\w+)=", text, re.MULTILINE))
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert set(copied) == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert set(re.findall(r"https?://([^/\s\"]+)", text)) == {"download.pytorch.org"}
