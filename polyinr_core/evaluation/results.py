"""Results of `polyinr evaluate`: metrics, and the card of all that they depend on; written and read back."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyinr_core.errors import EvaluationError, FileError, RequestError
from polyinr_core.metrics.registry import Metric
from polyinr_core.runtime.atomic_io import PathLike, explain, refuse_special
from polyinr_core.runtime.strict_json import (
    FORMAT,
    JsonError,
    format_json,
    is_number,
    is_whole,
    parse_json,
    to_unicode,
    upgrade,
)

if TYPE_CHECKING:
    import torch

    from polyinr_core.metrics.extractors import FeatureExtractor

    from .set_metrics import Source

MAX_DEPTH = 9
MAX_VALUE = 1e300
MAX_BYTES = 2**26  # a result is a few thousand bytes
LIBRARIES = ("polyinr", "torch", "timm", "torchvision", "numpy", "pillow")
GENERATED, STORED = "uint8, x * 127.5 + 128, clamped", "as stored"
WRITTEN_BY_SAMPLE = "uint8, (x + 1) * 127.5, clamped, truncated: as sample writes files"
RESIZED_INSIDE = "inside the network"
RESIZING = {
    "inception": "299, inside the network",
    "inception-clean": "299, bicubic on float channels, as clean-fid",
    "rfid-seed0": "299, as the 2015 Inception",
}
CPU_INFO = Path("/proc/cpuinfo")

Estimate = dict[str, float]  # value; low, high, std, level, resamples of an interval; bias, extrapolated by halving
Field = tuple[str, ...]


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one class, and the numbers of its images."""

    reals: int
    fakes: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Result:
    """One evaluation: its metrics by name, each with a "value", and its card; `name` is unique among results.

    `classes` has the metrics of each class, if they were computed.
    """

    name: str
    metrics: dict[str, Estimate]
    card: dict[str, Any]
    classes: dict[str, "ClassMetrics"] = field(default_factory=dict)

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
    classes = facts.get("classes", {})
    if not isinstance(classes, dict) or not all(map(_is_class, classes.values())):
        raise FileError(path, "is damaged: its metrics by class are not those of a result")
    by_class = {
        to_unicode(name): ClassMetrics(row["reals"], row["fakes"], _estimates(row["metrics"]))
        for name, row in classes.items()
    }
    return Result(to_unicode(path.stem), _estimates(metrics), card, by_class)


FORMAT_1_KEYS = {"figures": "metrics", "deviation": "std", "least": "min", "most": "max"}
FORMAT_1_VALUES = {"uniform by seed": "uniform"}


def upgrade_result(facts: Any) -> Any:
    """Return the JSON of a result of format 1, after `strict_json.upgrade`, with the keys of format 2."""
    if isinstance(facts, dict):
        names = {name: FORMAT_1_KEYS.get(name, name.replace("/drawn", "/rendered")) for name in facts}
        return {names[name]: upgrade_result(fact) for name, fact in facts.items()}
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


def _is_class(row: object) -> bool:
    if not isinstance(row, dict) or not all(is_whole(row.get(name), 0, 2**53) for name in ("reals", "fakes")):
        return False
    return row.get("metrics") == {} or _are_estimates(row.get("metrics"))


def _estimates(metrics: dict[str, dict[str, Any]]) -> dict[str, Estimate]:
    return {name: _numbers(estimate) for name, estimate in metrics.items()}


def _numbers(estimate: dict[str, Any]) -> Estimate:
    """Return the finite numbers of an estimate."""
    return {name: float(fact) for name, fact in estimate.items() if is_number(fact) and abs(fact) < MAX_VALUE}


def metric_lines(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line for each metric: its name, its value, and its interval or standard deviation if there is one."""
    width = max(map(len, metrics))
    lines = []
    for name, estimate in metrics.items():
        value = estimate["value"]
        line = f"{name:<{width}}  " + (f"{value:12d}" if isinstance(value, int) else f"{value:12.6g}")
        if "low" in estimate:
            line += f"  {estimate['low']:.6g} to {estimate['high']:.6g}"
        elif "std" in estimate:
            line += f"  +- {estimate['std']:.3g}"
        lines.append(line)
    return lines


def class_lines(classes: Mapping[str, Any]) -> list[str]:
    """Return a line for each class: name, counts, and its metrics, - for those that need more images."""
    names = list(dict.fromkeys(name for row in classes.values() for name in row["metrics"]))
    if not classes:
        return []
    width = max(len("class"), *map(len, classes))
    columns = [(name, max(11, len(name))) for name in names]
    lines = ["", f"{'class':<{width}}    reals    fakes" + "".join(f"  {name:>{size}}" for name, size in columns)]
    for class_name, row in classes.items():
        values = [row["metrics"][name]["value"] if name in row["metrics"] else None for name in names]
        cells = ["-" if value is None else f"{value:.5g}" for value in values]
        texts = "".join(f"  {cell:>{size}}" for cell, (_, size) in zip(cells, columns, strict=True))
        lines.append(f"{class_name:<{width}} {row['reals']:8d} {row['fakes']:8d}{texts}")
    return lines


def read_results(files: Sequence[PathLike], *, stdin: Callable[[], bytes] | None = None) -> list[Result]:
    """Read result files, each under a unique name; "-" is what `stdin` returns. Raises RequestError, FileError."""
    paths = [Path("stdin") if stdin and str(file) == "-" else Path(file).resolve() for file in files]
    for file, path in zip(files, paths, strict=True):
        if paths.count(path) > 1:
            raise RequestError(f"{file} is given twice")
    names = distinct_names(
        [Path(file) if path.is_absolute() else path for file, path in zip(files, paths, strict=True)]
    )
    results = [
        read_result(file) if path.is_absolute() or stdin is None else parse_result(stdin(), path)
        for file, path in zip(files, paths, strict=True)
    ]
    return [replace(result, name=name) for result, name in zip(results, names, strict=True)]


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


def make_card(
    reals: "Source | None",
    fakes: "Source",
    metrics: Mapping[str, Metric],
    extractors: Mapping[str, "FeatureExtractor"],
    *,
    device: "torch.device",
) -> dict[str, Any]:
    """Return the card of a result as a JSON object; `reals` is None if no metric uses them."""
    return {
        "resolution": reals.resolution if reals is not None and reals.resolution else fakes.resolution,
        "mirror": "none",
        "quantization": describe_quantization(fakes),
        "precision": "float32",
        **({} if reals is None else {"reals": reals.provenance}),
        "fakes": fakes.provenance,
        "networks": {name: describe_extractor(name, extractor) for name, extractor in extractors.items()},
        "protocols": {
            name: {"network": metric.network, "tap": metric.tap, "rule": metric.rule}
            for name, metric in metrics.items()
        },
        "libraries": library_versions(),
        "device": describe_device(device),
    }


def describe_quantization(fakes: "Source") -> str:
    """Return in words how the generated images were quantized to 8 bits, as far as that is known."""
    if fakes.provenance.get("kind") == "model":
        return GENERATED
    return WRITTEN_BY_SAMPLE if getattr(fakes, "written_by_sample", False) else STORED


def describe_extractor(name: str, extractor: "FeatureExtractor") -> dict[str, Any]:
    """Return an extractor's SHA-256 and resizing, and for Inception whether it is the published file."""
    facts: dict[str, Any] = {"sha256": extractor.sha256, "resize": describe_resizing(name, extractor)}
    published = getattr(extractor, "published", None)
    return facts if published is None else {**facts, "published": published}


def describe_resizing(name: str, extractor: "FeatureExtractor") -> str:
    """Return in words how an extractor resizes images."""
    resolution = getattr(extractor, "resolution", None)
    if name == "lite2":
        return f"{resolution}, bilinear with antialiasing"
    if resolution is not None:
        return f"{resolution}, {getattr(extractor, 'interpolation', 'bicubic')} with antialiasing"
    return RESIZING.get(name, RESIZED_INSIDE)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that the last digits of a metric depend on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def describe_device(device: "torch.device") -> dict[str, Any]:
    """Return the type and name of the device, and the number of threads of a CPU, whose name Linux knows."""
    import torch  # here: tables of results are made without it

    if device.type == "cuda":
        return {"type": device.type, "name": torch.cuda.get_device_name(device)}
    name = "unknown"
    with suppress(OSError), CPU_INFO.open() as lines:
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return {"type": device.type, "name": name, "threads": torch.get_num_threads()}
