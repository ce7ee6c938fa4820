"""Results as `polyinr evaluate` writes them, read back: figures and card of one evaluation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from polyinr_core.errors import EvaluationError, FileError
from polyinr_core.runtime.atomic_io import PathLike, explain, refuse_special
from polyinr_core.runtime.format1 import FORMAT, upgrade
from polyinr_core.runtime.strict_json import JsonError, format_json, is_number, parse_json, to_unicode

DEEPEST = 9
LARGEST = 1e300
LIMIT = 2**26  # bytes; a result is some thousand

Row = dict[str, float]
Field = tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """One evaluation: figures by name, each a row that has a "value"; the card; `name` tells it from others."""

    name: str
    figures: dict[str, Row]
    card: dict[str, Any]

    @cached_property
    def fields(self) -> dict[Field, Any]:
        """The card as one level: ("fakes", "psi") to 1.0."""
        return dict(flattened(self.card))


def flattened(facts: dict[str, Any], above: Field = ()) -> list[tuple[Field, Any]]:
    """Return nested facts as pairs of a path, of DEEPEST names at most, and a value."""
    found: list[tuple[Field, Any]] = []
    for name, fact in facts.items():
        place = (*above, name)
        nested = isinstance(fact, dict) and len(place) < DEEPEST
        found += flattened(fact, place) if nested else [(place, fact)]
    return found


def read_result(path: PathLike) -> Result:
    """Read a result file; its name is the file's stem. Raises FileError."""
    path = Path(path)
    refuse_special(path)
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise explain(path, error) from error
    return parse_result(data, path)


def parse_result(data: bytes, path: Path) -> Result:
    """Read a result from bytes that come from `path`. Raises FileError."""
    wanted = "figures and card as `polyinr evaluate -o result.json` writes them"
    if not data.strip():
        raise FileError(path, f"is empty; give {wanted}")
    if len(data) > LIMIT:
        raise FileError(path, f"is larger than {LIMIT >> 20} MiB, so no result; give {wanted}")
    try:
        facts = upgrade(parse_json(data, finite=False))
    except JsonError as error:
        raise FileError(path, f"is not JSON ({error}); give {wanted}") from error
    if not isinstance(facts, dict) or not {"format", "figures", "card"} <= facts.keys():
        raise FileError(path, f"is JSON of something else; give {wanted}")
    number = facts["format"]
    if isinstance(number, int) and number > FORMAT:
        raise FileError(path, f"is a result of format {number}, this polyinr reads {FORMAT}; update polyinr")
    figures, card = facts["figures"], facts["card"]
    if number != FORMAT or not isinstance(card, dict) or not _are_figures(figures):
        raise FileError(path, "is a damaged result: its figures or its card are not as they were written")
    return Result(to_unicode(path.stem), {name: _numbers(row) for name, row in figures.items()}, card)


def format_result(result: Mapping[str, Any]) -> str:
    """Return a result as JSON that `parse_result` reads. Raises EvaluationError for what are no figures."""
    wrong = [name for name, row in result["figures"].items() if "value" not in _numbers(row)]
    if wrong:
        raise EvaluationError(
            f"{', '.join(wrong)}: no finite number came out; are there images enough, and are they sound?"
        )
    try:
        return format_json(result, indent=2, sort_keys=False, ascii_only=False) + "\n"
    except JsonError as error:
        raise EvaluationError(f"the result cannot be written: {error}") from error


def _are_figures(figures: object) -> bool:
    if not isinstance(figures, dict) or not figures:
        return False
    return all(isinstance(row, dict) and "value" in _numbers(row) for row in figures.values())


def _numbers(row: dict[str, Any]) -> Row:
    """Return what is a finite number in a row."""
    return {name: float(fact) for name, fact in row.items() if is_number(fact) and abs(fact) < LARGEST}


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each file: its stem, with as many folders before it as tell it from the others."""
    names = [path.stem for path in paths]
    for depth in range(1, max((len(path.parts) for path in paths), default=0)):
        twice = {name for name in names if names.count(name) > 1}
        names = [
            "/".join([*path.parts[:-1][-depth:], path.stem]) if name in twice else name
            for name, path in zip(names, paths, strict=True)
        ]
    return [to_unicode(name) for name in names]


Family = Literal[
    "frechet", "kernel", "score", "neighbors", "path", "inversion", "upsampling", "speed", "params", "other"
]
Better = Literal["lower", "higher"]

PARTS = ("precision", "recall", "density", "coverage")  # of a metric of neighbors; higher is better
ENLARGED = ("drawn", "nearest", "bilinear", "bicubic")  # of upsampling
INVERSION: dict[str, Better] = {"psnr": "higher", "ssim": "higher", "lpips": "lower"}
LOWER = ("frechet", "kernel", "path", "upsampling", "speed", "params")


def base_of(name: str) -> str:
    """Return the metric that a figure belongs to: pr-lite2 of pr-lite2/recall, inversion of inversion/psnr."""
    stem, _, part = name.rpartition("/")
    if part in (*PARTS, *ENLARGED):
        return stem
    first = name.partition("/")[0]
    return first if first in ("inversion", "speed", "params") else name


def family_of(name: str) -> Family:
    """Return a figure's family, "other" for a name that is not known."""
    base = base_of(name)
    kinds: dict[str, Family] = {
        "fid": "frechet",
        "sfid": "frechet",
        "rfid": "frechet",
        "fd": "frechet",
        "kid": "kernel",
        "kd": "kernel",
        "is": "score",
        "pr": "neighbors",
        "dc": "neighbors",
        "ppl": "path",
        "inversion": "inversion",
        "upsampling": "upsampling",
        "speed": "speed",
        "params": "params",
    }
    return kinds.get(base.partition("-")[0], "other")


def better(name: str) -> Better | None:
    """Return which way a figure is better, None where that is not known."""
    family, part = family_of(name), name.rpartition("/")[2]
    if family in LOWER:
        return "lower"
    if family == "inversion":
        return INVERSION.get(part)
    return "higher" if family == "score" or part in PARTS else None


def best(name: str, values: Iterable[float]) -> float | None:
    """Return the best of a figure's values, None where the better way is not known or there is no value."""
    way, given = better(name), list(values)
    if way is None or not given:
        return None
    return min(given) if way == "lower" else max(given)
