"""The documents are true: the command reference is that of --help, README's commands run."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, small_checkpoint
from forked_commands import forked_commands
from PIL import Image

ROOT = Path(__file__).parent.parent


def test_the_command_reference_is_that_of_help() -> None:
    spec = importlib.util.spec_from_file_location("write_commands", ROOT / "docs" / "write_commands.py")
    write_commands = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write_commands)
    page = write_commands.PAGE.read_text()
    assert page == write_commands.reference(), "run python docs/write_commands.py"


def test_every_command_is_in_the_reference() -> None:
    from polyinr_cli.main import COMMANDS

    page = (ROOT / "docs" / "commands.md").read_text()
    assert re.findall(r"^## polyinr ([\w ]+)$", page, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


def test_docstrings_name_headings_that_are_there() -> None:
    """A pointer is written docs/PAGE.md, "HEADING"; nothing points to a section of a page without numbers."""
    found = 0
    for folder in ("polyinr_core", "polyinr_cli", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            text = re.sub(r"\s+", " ", path.read_text())
            assert not re.search(r"[Mm]ethod(:|,) sections? \d", text), path
            for page, heading in re.findall(r"docs/(\w+\.md), \"([^\"]+)\"", text):
                assert f"# {heading}\n" in (ROOT / "docs" / page).read_text(), (path, heading)
                found += 1
    assert found > 4


def readme_commands() -> list[list[str]]:
    """Return the arguments of each `polyinr` line in README's shell blocks, without what follows a pipe."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("polyinr ")]
    return [shlex.split(line.partition(" | ")[0], comments=True)[1:] for line in lines]


@pytest.mark.slow
def test_readme_commands_run(polyinr: Run, reference: Path, tmp_path: Path) -> None:
    """In their order, in one folder; training is cut short, and drawing takes a tiny model."""
    rng = np.random.default_rng(0)
    for name in ("tabby", "tiger"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (260, 280, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    shutil.copy(reference / "official_like.pkl", tmp_path / "best_model.pkl")
    Image.fromarray(rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    model = str(small_checkpoint(tmp_path / "ten.safetensors", levels=10))
    commands = readme_commands()
    for arguments in commands:
        if arguments[0] == "view":
            continue  # serves until it is stopped: tests/cli/test_view_command.py
        if arguments[0] == "train":
            arguments = [*arguments, "--preset", "tiny", "--max-time", "1s"]
        drawn = arguments[0] not in ("prepare", "info", "train", "convert")
        if drawn and "-m" not in arguments and arguments[0] not in ("compare", "table"):
            arguments = [*arguments, "-m", model]
        if "--real" in arguments:
            arguments = [*arguments, "--count", "20"]
        if arguments[0] == "invert":
            arguments = [*arguments, "--steps", "5"]
        ran = polyinr(*arguments)
        assert ran.code == 0, (arguments, ran.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pipes.sh", "walkthrough.sh", "image_tools.sh", "first_hour.sh"])
def test_examples_run(name: str, tmp_path: Path) -> None:
    """Each to its end; the first with this Python's own `polyinr`, the longer ones with processes that are forked.

    Training is cut short.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "MAX_TIME": "1s",
    }
    model = small_checkpoint(tmp_path / "ten.safetensors", levels=10)
    argument = [] if name in ("walkthrough.sh", "first_hour.sh") else [str(model)]
    command = ["bash", str(ROOT / "examples" / name), *argument]
    forked = nullcontext() if name == "pipes.sh" else forked_commands(tmp_path, environment=environment)
    with forked as folder:
        if folder is not None:
            environment["PATH"] = f"{folder}:{environment['PATH']}"
        ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert list(tmp_path.rglob("*.png"))
