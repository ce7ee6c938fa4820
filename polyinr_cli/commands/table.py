"""polyinr table: results side by side, as Markdown, LaTeX or CSV, with the paper's rows."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli import console as streams
from polyinr_cli.evaluate_options import load_results
from polyinr_cli.options import Quiet, Verbose
from polyinr_core.errors import RequestError


class Format(StrEnum):
    """What a table is printed as."""

    markdown = "markdown"
    latex = "latex"
    csv = "csv"


def table(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", show_default=False, help="Results of polyinr evaluate -o; - is stdin."),
    ],
    format: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.markdown,
    names: Annotated[
        str | None,
        typer.Option("--names", metavar="A,B", show_default=False, help="Names of the rows; else those of the files."),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            "--paper",
            metavar="TABLE",
            show_default=False,
            help="The paper's rows below: imagenet-128, imagenet-256, imagenet-512, ffhq-256, ffhq-1024, "
            "upsampling, inversion.",
        ),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Print results side by side, the best of each column in bold, with a note where cards forbid a comparison.

    Only figures of one name share a column. Of figures with intervals all are bold that cannot be told from the
    best. CSV has the numbers alone: the notes go to stderr.

    Example: polyinr table runs/*/result.json --paper imagenet-256
    """
    from polyinr_core.evaluation.tables import published, table_of, typeset

    known = published(paper) if paper is not None else None
    results = load_results(files)
    if names is not None:
        titles = [name.strip() for name in names.split(",")]
        if len(titles) != len(results) or len(set(titles)) != len(titles) or "" in titles:
            raise RequestError(f"--names {names!r} gives no name of its own to each of {len(results)} results")
        results = [replace(result, name=title) for result, title in zip(results, titles, strict=True)]
    found = table_of(results, known)
    for line in typeset(found, format.value):
        streams.line(line)
    if format is Format.csv:
        for note in (*found.notes, found.source):
            if note:
                streams.say(f"polyinr: {note}", quiet=quiet, always=True)
