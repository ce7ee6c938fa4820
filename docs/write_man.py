"""Write a manual page for polyinr and each of its commands from --help: python docs/write_man.py [FOLDER]

Read one with `man -l man/man1/polyinr-train.1`, or all as `man polyinr-train` with man/ in $MANPATH.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer

from polyinr_cli.main import COMMANDS, app, load

FOLDER = Path("man", "man1")


def roff(text: str) -> str:
    """Return text as roff shows it literally: hyphens as typed, no line taken for a request."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def paragraphs(text: str) -> str:
    """Return the paragraphs of a help text, one below the other."""
    return "\n.PP\n".join(roff(" ".join(part.split())) for part in text.split("\n\n") if part.strip())


def page(name: str, summary: str, command: Any) -> str:
    """Return the manual page of a command of Typer; `name` is as it is typed after polyinr, empty for the whole."""
    title = "-".join(["polyinr", *name.split()])
    called = " ".join(["polyinr", *name.split()])
    context = typer.Context(command, info_name=called, **command.context_settings)
    records = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [
        f'.TH "{title.upper()}" 1 "" "polyinr {version("polyinr")}" "polyinr"',
        f".SH NAME\n{roff(title)} \\- {roff(summary)}",
        f".SH SYNOPSIS\n.B {roff(context.command_path)}\n{roff(usage)}",
        f".SH DESCRIPTION\n{paragraphs(command.help or '')}",
        ".SH OPTIONS",
        *(f".TP\n.B {roff(option)}\n{roff(' '.join(text.split()))}" for option, text in records),
    ]
    if not name:
        parts.append(".SH COMMANDS")
        parts += [f".TP\n.BR {roff(f'polyinr-{other}')} (1)\n{roff(text)}" for other, text in COMMANDS.items()]
    else:
        parts.append(".SH SEE ALSO\n.BR polyinr (1)")
    return "\n".join(parts) + "\n"


def pages() -> dict[str, str]:
    """Return the pages by file name."""
    whole = page("", "generate images as polynomials of the pixel coordinates", typer.main.get_command(app))
    commands = {f"polyinr-{name}.1": page(name, text.rstrip("."), load(name)) for name, text in COMMANDS.items()}
    return {"polyinr.1": whole, **commands}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in pages().items():
        (folder / file).write_text(text, encoding="utf-8")
