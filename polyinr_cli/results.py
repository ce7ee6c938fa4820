"""Results of `polyinr evaluate` as commands take them: by files, or piped in."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import RequestError

from . import streams

if TYPE_CHECKING:
    from polyinr_core.results.result import Result


def load_results(files: Sequence[Path]) -> "list[Result]":
    """Read results, each under a name of its own; - is stdin. Raises RequestError, FileError."""
    from polyinr_core.results.result import distinct_names, parse_result, read_result

    places = [path if _is_stdin(path) else path.resolve() for path in files]
    for path, place in zip(files, places, strict=True):
        if places.count(place) > 1:
            raise RequestError(f"{path} is given twice; a result says nothing beside itself")
    found = [
        parse_result(streams.binary_stdin("result"), Path("stdin")) if _is_stdin(path) else read_result(path)
        for path in files
    ]
    names = distinct_names([Path("stdin") if _is_stdin(path) else path for path in files])
    return [replace(result, name=name) for result, name in zip(found, names, strict=True)]


def _is_stdin(path: Path) -> bool:
    return str(path) == "-"
