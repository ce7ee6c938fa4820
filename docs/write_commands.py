"""Write docs/commands.md, the command reference, from --help: python docs/write_commands.py"""

import os
import subprocess
import sys
from pathlib import Path

from polyinr_cli.main import COMMANDS

PAGE = Path(__file__).parent / "commands.md"


def help_of(*arguments: str) -> str:
    """Return what `polyinr ARGUMENTS --help` prints, 100 columns wide."""
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "polyinr_cli.main", *arguments, "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def reference() -> str:
    """Return the whole page."""
    parts = ["# Commands\n\nWritten from `--help` by `python docs/write_commands.py`.\n"]
    for name in COMMANDS:
        parts.append(f"## polyinr {name}\n\n```\n{help_of(*name.split()).strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(reference())
