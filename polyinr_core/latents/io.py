"""The latents file: z, w and affine parameters of images as safetensors, with seeds, psi and the model's hash."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyinr_core.errors import FileError
from polyinr_core.runtime.atomic_io import PathLike, read_bytes, written_beside
from polyinr_core.runtime.strict_json import JsonError, is_number, is_whole, to_unicode
from polyinr_core.runtime.tensor_files import (
    METADATA,
    TensorFileError,
    check_values,
    encode_tensors,
    facts_in,
    names_in,
    read_header,
    read_tensors,
)

from .latents import TENSORS, Latents, Photo

FORMAT = 1
METADATA_KEY = "polyinr_latents"
MAX_SIDE = 2**20  # pixels of a photo
MAX_COORDINATE = 1e6  # of its window
DIMS = {"z": 2, "w": 3, "affine": 4, "label": 1}


def encode_latents(latents: Latents, *, name: PathLike = "stdout") -> bytes:
    """Return the bytes of a latents file, which `read_latents` reads. Raises FileError, with `name`."""
    facts: dict[str, Any] = {
        "format": FORMAT,
        "seeds": list(latents.seeds),
        "psi": latents.psi,
        "model_sha256": latents.model_sha256,
    }
    if latents.untuned_sha256:
        facts["untuned_sha256"] = latents.untuned_sha256
    if latents.photos:
        facts["photos"] = [
            {"name": to_unicode(one.name), "size": list(one.size), "window": list(one.window), "scores": one.scores}
            for one in latents.photos
        ]
    tensors = {name: getattr(latents, name) for name in TENSORS if getattr(latents, name) is not None}
    _checked_tensors(Path(name), tensors)
    _checked_facts(Path(name), facts, count=len(latents))
    try:
        return encode_tensors(tensors, key=METADATA_KEY, facts=facts)
    except JsonError as error:
        raise FileError(name, f"cannot be written as latents: {error}") from error


def write_latents(path: PathLike, latents: Latents, *, overwrite: bool = False) -> None:
    """Write a latents file. Raises FileError."""
    path = Path(path)
    data = encode_latents(latents, name=path)
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(data)


def read_latents(source: PathLike | bytes) -> Latents:
    """Read a latents file, or its bytes; floats as float32, or float64 where they are. Raises FileError.

    A file made elsewhere needs no facts: only tensors of the known names and shapes.
    """
    name = Path("stdin") if isinstance(source, bytes) else Path(source)
    data = source if isinstance(source, bytes) else read_bytes(name)
    if not data:
        raise FileError(name, "is empty; a latents file was expected")
    try:
        header, tensors = read_header(data), read_tensors(data)
    except TensorFileError as error:
        raise FileError(name, f"not a latents file ({error}); `polyinr sample -o x.safetensors` makes one") from error
    held: dict[str, Any] = _checked_tensors(name, tensors)
    try:
        stored = facts_in(header, METADATA_KEY)
    except TensorFileError as error:
        raise FileError(name, f"its facts are damaged ({error}); make the file again") from error
    facts = {} if stored is None else _checked_facts(name, stored, count=len(next(iter(held.values()))))
    return Latents(**held, **facts, sha256=hashlib.sha256(data).hexdigest())


def is_latents_file(path: PathLike) -> bool:
    """Say whether a safetensors file holds latents, by its header alone. Raises FileError."""
    try:
        header = read_header(Path(path))
    except TensorFileError as error:
        raise FileError(path, str(error)) from error
    names = names_in(header)
    return METADATA_KEY in header[METADATA] or (0 < len(names) and names <= set(DIMS))


def _checked_tensors(name: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in our types, or raise FileError for any that cannot be latents."""
    if unknown := sorted(set(tensors) - set(DIMS)):
        raise FileError(name, f"not a latents file: it holds {', '.join(unknown[:5])}; known are {', '.join(DIMS)}")
    if not set(tensors) - {"label"}:
        raise FileError(name, "holds no latents; one of z, w, affine is needed")
    counts = set()
    for key, tensor in tensors.items():
        shape = list(tensor.shape)
        if tensor.dim() != DIMS[key] or 0 in shape or (key == "affine" and shape[2] != 3):
            wanted = {"z": "[N, z]", "w": "[N, L, w]", "affine": "[N, L, 3, n]", "label": "[N]"}[key]
            raise FileError(name, f"{key} has the shape {shape}, not {wanted}")
        if (key == "label") == tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise FileError(name, f"{key} has the type {tensor.dtype}")
        counts.add(len(tensor))
    if len(counts) > 1:
        raise FileError(name, f"its tensors disagree on the number of images: {sorted(counts)}")
    try:
        check_values({key: tensor for key, tensor in tensors.items() if key != "label"})
    except TensorFileError as error:
        raise FileError(name, str(error)) from error
    return {key: tensor.to(_our_type(tensor)) for key, tensor in tensors.items()}


def _our_type(tensor: Tensor) -> torch.dtype:
    if not tensor.is_floating_point():
        return torch.int64
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _checked_facts(name: Path, facts: Any, *, count: int) -> dict[str, Any]:
    """Return the facts as fields of Latents, or raise FileError."""
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        number = facts.get("format") if isinstance(facts, dict) else None
        raise FileError(name, f"latents format {number!r}, this polyinr reads {FORMAT}; update polyinr")
    seeds, psi, model = facts.get("seeds", []), facts.get("psi"), facts.get("model_sha256", "")
    good_seeds = isinstance(seeds, list) and len(seeds) in (0, count) and all(is_whole(s) for s in seeds)
    if not good_seeds or not (psi is None or is_number(psi)) or not isinstance(model, str):
        raise FileError(name, "its facts (seeds, psi, model) are damaged; make the file again")
    untuned = facts.get("untuned_sha256", "")
    try:
        photos = tuple(_photo(one) for one in facts.get("photos", []))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(name, "its facts on photos are damaged; make the file again") from error
    if len(photos) not in (0, count) or not isinstance(untuned, str):
        raise FileError(name, "its facts on photos are damaged; make the file again")
    return {
        "seeds": tuple(seeds),
        "psi": psi,
        "model_sha256": model,
        "untuned_sha256": untuned,
        "photos": photos,
    }


def _photo(facts: dict[str, Any]) -> Photo:
    """Return the photo that facts describe. Damaged ones are a KeyError, TypeError, ValueError or AttributeError."""
    (width, height), (x0, y0, x1, y1) = facts["size"], facts["window"]
    scores = dict(facts.get("scores", {}).items())
    whole = all(is_whole(number) and 1 <= number <= MAX_SIDE for number in (width, height))
    finite = all(is_number(number) and abs(number) <= MAX_COORDINATE for number in (x0, y0, x1, y1))
    if not whole or not finite or x0 == x1 or y0 == y1 or not isinstance(facts["name"], str):
        raise ValueError(facts)
    return Photo(facts["name"], (width, height), (float(x0), float(y0), float(x1), float(y1)), scores)


def describe_latents(latents: Latents) -> dict[str, Any]:
    """Return the facts of latents: the shapes of the tensors, the seeds, psi, the labels and the model's hash."""
    held = {name: getattr(latents, name) for name in ("z", "w", "affine", "label")}
    facts: dict[str, Any] = {
        "kind": "latents",
        "count": len(latents),
        "tensors": {name: list(tensor.shape) for name, tensor in held.items() if tensor is not None},
        "seeds": list(latents.seeds),
        "psi": latents.psi,
        "model": latents.model_sha256,
        "sha256": latents.sha256,
    }
    if latents.untuned_sha256:
        facts["model_before_tuning"] = latents.untuned_sha256
    if latents.photos:
        facts["photos"] = [asdict(photo) for photo in latents.photos]
    return facts if latents.label is None else facts | {"labels": latents.label.tolist()}
