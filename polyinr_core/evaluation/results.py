"""Result files of `polyinr evaluate`: the metrics and the card of one evaluation, written and read back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from polyinr_core.errors import EvaluationError, FileError
from polyinr_core.runtime.atomic_io import PathLike, explain, refuse_special
from polyinr_core.runtime.strict_json import FORMAT, JsonError, format_json, is_number, parse_json, to_unicode, upgrade

MAX_DEPTH = 9
MAX_VALUE = 1e300
MAX_BYTES = 2**26  # a result is a few thousand bytes

Estimate = dict[str, float]  # value; low, high, std, level, resamples of an interval; bias, extrapolated by halving
Field = tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """One evaluation: its metrics by name, each with a "value", and its card; `name` is unique among results."""

    name: str
    metrics: dict[str, Estimate]
    card: dict[str, Any]

    @cached_property
    def fields(self) -> dict[Field, Any]:
        """The card, flattened: ("fakes", "psi") to 1.0."""
        return dict(flatten(self.card))


def flatten(facts: dict[str, Any], parents: Field = ()) -> list[tuple[Field, Any]]:
    """Return the leaves of nested facts, each with its path of at most MAX_DEPTH names."""
    leaves: list[tuple[Field, Any]] = []
    for name, fact in facts.items():
        field = (*parents, name)
        nested = isinstance(fact, dict) and len(field) < MAX_DEPTH
        leaves += flatten(fact, field) if nested else [(field, fact)]
    return leaves


def read_result(path: PathLike) -> Result:
    """Read a result file; its name is the file's stem. Raises FileError."""
    path = Path(path)
    refuse_special(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise explain(path, error) from error
    return parse_result(data, path)


def parse_result(data: bytes, path: Path) -> Result:
    """Read a result of format 1 or 2 from bytes that come from `path`. Raises FileError."""
    expected = "give a file written by `polyinr evaluate -o result.json`"
    if not data.strip():
        raise FileError(path, f"is empty; {expected}")
    if len(data) > MAX_BYTES:
        raise FileError(path, f"is larger than {MAX_BYTES >> 20} MiB, too large for a result; {expected}")
    try:
        facts = parse_json(data, finite=False)
    except JsonError as error:
        raise FileError(path, f"is not JSON ({error}); {expected}") from error
    if isinstance(facts, dict) and facts.get("format") == 1:
        facts = upgrade_result(upgrade(facts))
    number = facts.get("format") if isinstance(facts, dict) and "card" in facts else None
    if isinstance(number, int) and number > FORMAT:
        raise FileError(path, f"is a result of format {number}; this version reads up to {FORMAT}: update polyinr")
    if not isinstance(facts, dict) or not {"format", "metrics", "card"} <= facts.keys():
        raise FileError(path, f"is JSON, but not a result; {expected}")
    metrics, card = facts["metrics"], facts["card"]
    if number != FORMAT or not isinstance(card, dict) or not _are_estimates(metrics):
        raise FileError(path, "is damaged: its metrics or its card are not those of a result")
    return Result(to_unicode(path.stem), {name: _numbers(estimate) for name, estimate in metrics.items()}, card)


FORMAT_1_KEYS = {"figures": "metrics", "deviation": "std", "least": "min", "most": "max"}
FORMAT_1_VALUES = {"uniform by seed": "uniform"}


def upgrade_result(facts: Any) -> Any:
    """Return the JSON of a result of format 1, after `strict_json.upgrade`, with the keys of format 2."""
    if isinstance(facts, dict):
        return {FORMAT_1_KEYS.get(name, name): upgrade_result(fact) for name, fact in facts.items()}
    if isinstance(facts, list):
        return [upgrade_result(fact) for fact in facts]
    return FORMAT_1_VALUES.get(facts, facts) if isinstance(facts, str) else facts


def format_result(result: Mapping[str, Any]) -> str:
    """Return a result as JSON for `parse_result`. Raises EvaluationError for values that are NaN or Inf."""
    wrong = [name for name, estimate in result["metrics"].items() if "value" not in _numbers(estimate)]
    if wrong:
        raise EvaluationError(
            f"{', '.join(wrong)}: the value is NaN or Inf; are there enough images, and are they intact?"
        )
    try:
        return format_json(result, indent=2, sort_keys=False, ascii_only=False) + "\n"
    except JsonError as error:
        raise EvaluationError(f"the result cannot be written: {error}") from error


def _are_estimates(metrics: object) -> bool:
    if not isinstance(metrics, dict) or not metrics:
        return False
    return all(isinstance(estimate, dict) and "value" in _numbers(estimate) for estimate in metrics.values())


def _numbers(estimate: dict[str, Any]) -> Estimate:
    """Return the finite numbers of an estimate."""
    return {name: float(fact) for name, fact in estimate.items() if is_number(fact) and abs(fact) < MAX_VALUE}


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a unique name for each file: its stem, preceded by folders where stems are equal."""
    names = [path.stem for path in paths]
    for depth in range(1, max((len(path.parts) for path in paths), default=0)):
        repeated = {name for name in names if names.count(name) > 1}
        names = [
            "/".join([*path.parts[:-1][-depth:], path.stem]) if name in repeated else name
            for name, path in zip(names, paths, strict=True)
        ]
    return [to_unicode(name) for name in names]


Family = Literal[
    "frechet", "kernel", "score", "neighbors", "path", "inversion", "upsampling", "speed", "params", "other"
]
Better = Literal["lower", "higher"]

NEIGHBOR_PARTS = ("precision", "recall", "density", "coverage")  # higher is better
UPSAMPLING_PARTS = ("drawn", "nearest", "bilinear", "bicubic")
INVERSION: dict[str, Better] = {"psnr": "higher", "ssim": "higher", "lpips": "lower"}
LOWER_IS_BETTER: tuple[Family, ...] = ("frechet", "kernel", "path", "upsampling", "speed", "params")


def base_of(name: str) -> str:
    """Return the metric that a name is a part of: pr-lite2 of pr-lite2/recall, inversion of inversion/psnr."""
    stem, _, part = name.rpartition("/")
    if part in (*NEIGHBOR_PARTS, *UPSAMPLING_PARTS):
        return stem
    first = name.partition("/")[0]
    return first if first in ("inversion", "speed", "params") else name


def family_of(name: str) -> Family:
    """Return the family of a metric, "other" for an unknown name."""
    base = base_of(name)
    families: dict[str, Family] = {
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
    return families.get(base.partition("-")[0], "other")


def better(name: str) -> Better | None:
    """Return whether lower or higher values of a metric are better, None if unknown."""
    family, part = family_of(name), name.rpartition("/")[2]
    if family in LOWER_IS_BETTER:
        return "lower"
    if family == "inversion":
        return INVERSION.get(part)
    return "higher" if family == "score" or part in NEIGHBOR_PARTS else None


def best(name: str, values: Iterable[float]) -> float | None:
    """Return the best of a metric's values, None without values or if it is unknown which are better."""
    direction, given = better(name), list(values)
    if direction is None or not given:
        return None
    return min(given) if direction == "lower" else max(given)
