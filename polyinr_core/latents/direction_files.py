"""Directions files: the directions of a space as safetensors, with what they were computed from as JSON."""

from pathlib import Path
from typing import Any

from torch import Tensor

from polyinr_core.errors import FileError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.runtime.atomic_io import PathLike, read_bytes, written_beside
from polyinr_core.runtime.strict_json import JsonError, is_number, is_whole
from polyinr_core.runtime.tensor_files import (
    METADATA,
    TensorFileError,
    check_values,
    encode_tensors,
    facts_in,
    read_header,
    read_tensors,
)

from .directions import DIRECTION_SPACES, Directions

FORMAT = 1
METADATA_KEY = "polyinr_directions"
TENSORS = ("mean", "components", "deviations", "shares")
OTHER = "not a directions file; `polyinr directions -o x.safetensors` makes one"


def encode_directions(directions: Directions, *, name: PathLike = "stdout") -> bytes:
    """Return the bytes of a directions file, which `read_directions` reads. Raises FileError, with `name`."""
    facts: dict[str, Any] = {
        "format": FORMAT,
        "space": directions.space,
        "samples": directions.samples,
        "psi": directions.psi,
        "label": directions.label,
        "model_sha256": directions.model_sha256,
    }
    if directions.names:
        facts["names"] = list(directions.names)
    tensors = {key: getattr(directions, key) for key in TENSORS}
    _check_tensors(Path(name), tensors)
    _checked_facts(Path(name), facts, directions.mean, count=len(directions))
    try:
        return encode_tensors(tensors, key=METADATA_KEY, facts=facts)
    except JsonError as error:
        raise FileError(name, f"cannot be written as directions: {error}") from error


def write_directions(path: PathLike, directions: Directions, *, overwrite: bool = False) -> None:
    """Write a directions file. Raises FileError."""
    path = Path(path)
    data = encode_directions(directions, name=path)
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(data)


def read_directions(source: PathLike | bytes) -> Directions:
    """Read a directions file, or its bytes. Raises FileError."""
    name = Path("stdin") if isinstance(source, bytes) else Path(source)
    data = source if isinstance(source, bytes) else read_bytes(name)
    try:
        header, tensors = read_header(data), read_tensors(data)
    except TensorFileError as error:
        raise FileError(name, OTHER) from error
    if set(tensors) != set(TENSORS) or METADATA_KEY not in header[METADATA]:
        raise FileError(name, OTHER)
    try:
        facts = facts_in(header, METADATA_KEY)
    except TensorFileError as error:
        raise FileError(name, f"damaged ({error}); make the file again") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        number = facts.get("format") if isinstance(facts, dict) else None
        raise FileError(name, f"directions format {number!r}, this polyinr reads {FORMAT}; update polyinr")
    _check_tensors(name, tensors)
    fields: dict[str, Any] = {
        **tensors,
        **_checked_facts(name, facts, tensors["mean"], count=len(tensors["components"])),
    }
    return Directions(**fields)


def is_directions_file(path: PathLike) -> bool:
    """Say whether a safetensors file holds directions, by its header alone. Raises FileError."""
    try:
        return METADATA_KEY in read_header(Path(path))[METADATA]
    except TensorFileError as error:
        raise FileError(path, str(error)) from error


def check_directions(directions: Directions, config: GeneratorConfig, *, source: Path) -> None:
    """Raise FileError if directions do not fit a model's sizes."""
    row = (config.w_dim,) if directions.space == "w" else (3, config.channels)
    shape = (config.levels, *row)
    if tuple(directions.mean.shape) != shape:
        raise FileError(
            source,
            f"its {directions.space} is {list(directions.mean.shape)} an image, not {list(shape)}; "
            "take the model it is from",
        )


def _check_tensors(name: Path, tensors: dict[str, Tensor]) -> None:
    mean, components = tensors["mean"], tensors["components"]
    count = len(components) if components.dim() else 0
    shapes = {"mean": mean.shape, "components": (count, *mean.shape), "deviations": (count,), "shares": (count,)}
    for key, tensor in tensors.items():
        if tuple(tensor.shape) != tuple(shapes[key]) or not tensor.numel() or not tensor.is_floating_point():
            raise FileError(name, f"damaged: {key} is {list(tensor.shape)} {tensor.dtype}; make the file again")
    try:
        check_values(tensors)
    except TensorFileError as error:
        raise FileError(name, f"{error}; make the file again") from error


def _checked_facts(name: Path, facts: dict[str, Any], mean: Tensor, *, count: int) -> dict[str, Any]:
    """Return the facts as fields of Directions. Raises FileError."""
    space, samples, label = facts.get("space"), facts.get("samples"), facts.get("label")
    psi, model, names = facts.get("psi"), facts.get("model_sha256"), facts.get("names", [])
    good = (
        isinstance(space, str)
        and space in DIRECTION_SPACES
        and mean.dim() == {"w": 2, "affine": 3}[space]
        and is_whole(samples)
        and is_number(psi)
        and (label is None or is_whole(label))
        and isinstance(model, str)
        and isinstance(names, list)
        and len(names) in (0, count)
        and all(isinstance(one, str) for one in names)
    )
    if not good:
        raise FileError(name, "its facts (space, samples, psi, model) are damaged; make the file again")
    fields: dict[str, Any] = {
        "space": space,
        "samples": samples,
        "psi": float(psi),  # type: ignore[arg-type]
        "label": label,
        "model_sha256": model,
    }
    return fields | {"names": tuple(names)}
