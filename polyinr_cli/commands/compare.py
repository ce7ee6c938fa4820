"""polyinr compare: the differences between two results, and which of their metrics can be compared."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.options import Json, Quiet, Verbose


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="A result of polyinr evaluate -o; - is stdin.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Another result.")],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Explain how two results differ, what that does to their metrics, and which can be compared.

    Example: polyinr compare ours.json theirs.json
    """
    from polyinr_core.evaluation.compare import compare
    from polyinr_core.evaluation.results import read_results
    from polyinr_core.evaluation.tables import comparison_lines

    a, b = read_results([first, second], stdin=partial(console.binary_stdin, "result"))
    comparison = compare(a, b)
    if as_json:
        console.json_line(comparison.to_dict((a.name, b.name)))
        return
    console.lines(comparison_lines(a, b, comparison))
