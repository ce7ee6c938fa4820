"""The directions file: directions and the facts that name them, one safetensors file."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from ..errors import FileError
from ..files import explain, read_bytes, refuse_special, written_beside
from ..model import GeneratorConfig
from .directions import SPACES, Directions
from .file import header_entry

FORMAT = 1
METADATA_KEY = "polyinr_directions"
TENSORS = ("mean", "components", "deviations", "shares")


def encode_directions(directions: Directions) -> bytes:
    """Return the bytes of a directions file."""
    facts = {
        "format": FORMAT,
        "space": directions.space,
        "samples": directions.samples,
        "psi": directions.psi,
        "label": directions.label,
        "model_sha256": directions.model_sha256,
    }
    tensors = {name: getattr(directions, name).contiguous() for name in TENSORS}
    return save(tensors, metadata={METADATA_KEY: json.dumps(facts, sort_keys=True)})


def write_directions(path: Path, directions: Directions, *, overwrite: bool = False) -> None:
    """Write a directions file. Raises FileError."""
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(encode_directions(directions))


def read_directions(source: Path | bytes) -> Directions:
    """Read a directions file, or its bytes. Raises FileError."""
    name = source if isinstance(source, Path) else Path("stdin")
    data = read_bytes(source) if isinstance(source, Path) else source
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise FileError(name, "not a directions file; `polyinr directions -o x.safetensors` makes one") from error
    facts = header_entry(data, METADATA_KEY)
    if set(tensors) != set(TENSORS) or facts == {}:
        raise FileError(name, "not a directions file; `polyinr directions -o x.safetensors` makes one")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        number = facts.get("format") if isinstance(facts, dict) else None
        raise FileError(name, f"directions format {number!r}, this polyinr reads {FORMAT}; update polyinr")
    _check_tensors(name, tensors)
    fields: dict[str, Any] = {**tensors, **_checked_facts(name, facts, tensors["mean"])}
    return Directions(**fields)


def is_directions_file(path: Path) -> bool:
    """Say whether a safetensors file holds directions, by its header alone. Raises FileError."""
    refuse_special(path)
    try:
        with safe_open(path, "pt") as file:
            return METADATA_KEY in (file.metadata() or {})
    except SafetensorError as error:
        raise FileError(path, f"not a safetensors file ({error})") from error
    except OSError as error:
        raise explain(path, error) from error


def check_directions(directions: Directions, config: GeneratorConfig, *, source: Path) -> None:
    """Raise FileError if directions do not fit a model's sizes."""
    row = (config.w_dim,) if directions.space == "w" else (3, config.channels)
    shape = (config.levels, *row)
    if tuple(directions.mean.shape) != shape:
        raise FileError(
            source,
            f"its {directions.space} is {list(directions.mean.shape)} a picture, not {list(shape)}; "
            "take the model it is from",
        )


def _check_tensors(name: Path, tensors: dict[str, Tensor]) -> None:
    mean, components = tensors["mean"], tensors["components"]
    count = len(components) if components.dim() else 0
    shapes = {"mean": mean.shape, "components": (count, *mean.shape), "deviations": (count,), "shares": (count,)}
    for key, tensor in tensors.items():
        if tuple(tensor.shape) != tuple(shapes[key]) or not tensor.numel() or not tensor.is_floating_point():
            raise FileError(name, f"damaged: {key} is {list(tensor.shape)} {tensor.dtype}; make the file again")
        if not bool(torch.isfinite(tensor).all()):
            raise FileError(name, f"{key} holds values that are no finite numbers; make the file again")


def _checked_facts(name: Path, facts: dict[str, Any], mean: Tensor) -> dict[str, Any]:
    """Return the facts as fields of Directions. Raises FileError."""
    space, samples, label = facts.get("space"), facts.get("samples"), facts.get("label")
    psi, model = facts.get("psi"), facts.get("model_sha256")
    good = (
        space in SPACES
        and mean.dim() == {"w": 2, "affine": 3}[space]
        and type(samples) is int
        and isinstance(psi, int | float)
        and (label is None or type(label) is int)
        and isinstance(model, str)
    )
    if not good:
        raise FileError(name, "its facts (space, samples, psi, model) are damaged; make the file again")
    return {"space": space, "samples": samples, "psi": float(psi), "label": label, "model_sha256": model}  # type: ignore[arg-type]
