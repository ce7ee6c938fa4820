"""Write docs/commands.md, the command reference, from --help: python docs/write_commands.py"""

import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

from polyinr_cli.main import COMMANDS, outcome

PAGE = Path(__file__).parent / "commands.md"


def help_of(name: str) -> str:
    """Return what `polyinr NAME --help` prints, 100 columns wide."""
    with redirect_stdout(io.StringIO()) as text, patch.dict(os.environ, COLUMNS="100", NO_COLOR="1"):
        outcome([*name.split(), "--help"])
    return text.getvalue()


def reference() -> str:
    """Return the whole page."""
    parts = ["# Commands\n\nWritten from `--help` by `python docs/write_commands.py`.\n"]
    parts += [f"## polyinr {name}\n\n```\n{help_of(name).strip()}\n```\n" for name in COMMANDS]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(reference())
