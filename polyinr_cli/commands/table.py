"""polyinr table: results resolution by resolution, as Markdown, LaTeX or CSV, with the paper's rows."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from polyinr_cli import console
from polyinr_cli.options import Quiet, Verbose
from polyinr_core.errors import RequestError


def table(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Results of polyinr evaluate -o; - is stdin.")],
    format: Annotated[Literal["markdown", "latex", "csv"], typer.Option(help="The format of the table.")] = "markdown",
    names: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Names of the rows, one for each file. Default: the names of the files."),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            help="Append the paper's rows of a table: imagenet-128, imagenet-256, imagenet-512, ffhq-256, ffhq-1024, "
            "upsampling, inversion.",
        ),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Print a table of results, with the best value of each column in bold and notes on what is not comparable.

    Only metrics of one name share a column. With intervals, all values are bold that cannot be distinguished from the
    best. CSV has the numbers only; the notes go to stderr.

    Example: polyinr table runs/*/result.json --paper imagenet-256
    """
    from polyinr_core.evaluation.results import read_results
    from polyinr_core.evaluation.tables import published, table_of, typeset

    known = published(paper) if paper is not None else None
    results = read_results(files, stdin=partial(console.binary_stdin, "result"))
    if names is not None:
        titles = [name.strip() for name in names.split(",")]
        if len(titles) != len(results) or len(set(titles)) != len(titles) or "" in titles:
            raise RequestError(f"--names {names!r} must give {len(results)} different names, one for each result")
        results = [replace(result, name=title) for result, title in zip(results, titles, strict=True)]
    rows = table_of(results, known)
    console.lines(typeset(rows, format))
    if format == "csv":
        for note in (*rows.notes, rows.source):
            if note:
                console.say(f"polyinr: {note}", quiet=quiet, always=True)
