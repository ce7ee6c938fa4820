"""Few calls lie between a command and its file, and few imports between the commands and the library."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from call_path import call_path, import_depth  # noqa: E402

from polyinr_cli.main import COMMANDS  # noqa: E402


def test_from_sample_to_its_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """At most 30 functions in 15 files; the first is the command line's, the last writes the image."""
    path = call_path(["sample", "--seeds", "0", "-m", str(tiny_checkpoint), "-o", str(tmp_path / "x.png")])
    assert path[0] == ("polyinr_cli/main.py", "outcome")
    assert path[-1] == ("polyinr_core/images/io.py", "write_pixels")
    assert len(path) <= 30
    assert len({file for file, _ in path}) <= 15


@pytest.mark.parametrize("command", COMMANDS)
def test_import_depth(command: str) -> None:
    """A command imports modules that import at most one more layer of the command line's."""
    assert import_depth(f"polyinr_cli.commands.{command}") <= 2


def test_import_depth_from_the_entry_on() -> None:
    assert import_depth() <= 3
