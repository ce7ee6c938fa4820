"""The latents file: z, w and affine maps of images, and the facts that name them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from polyinr_core.errors import FileError
from polyinr_core.runtime.atomic_io import PathLike, read_bytes, written_beside
from polyinr_core.runtime.strict_json import JsonError, is_number, is_whole
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

FORMAT = 1
METADATA_KEY = "polyinr_latents"
RANKS = {"z": 2, "w": 3, "affine": 4, "label": 1}

Space = Literal["z", "w", "affine"]


@dataclass(frozen=True)
class Latents:
    """N images: any of z [N, z], w [N, L, w] (truncated), affine [N, L, 3, n], with label [N] int64.

    `seeds`, `psi` and `model_sha256` say where they came from, where that is known; `sha256` is that of the
    file they were read from.
    """

    z: Tensor | None = None
    w: Tensor | None = None
    affine: Tensor | None = None
    label: Tensor | None = None
    seeds: tuple[int, ...] = ()
    psi: float | None = None
    model_sha256: str = ""
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.tensor)

    @property
    def space(self) -> Space:
        """The space nearest to the image that is held."""
        if self.affine is not None:
            return "affine"
        return "z" if self.w is None else "w"

    @property
    def tensor(self) -> Tensor:
        """The latents in `space`."""
        held = getattr(self, self.space)
        assert isinstance(held, Tensor)
        return held

    def image(self, index: int) -> "Latents":
        """Return image `index` alone, as latents of N = 1."""
        rows: dict[str, Any] = {
            name: None if value is None else value[index : index + 1] for name, value in _tensors(self).items()
        }
        seeds = self.seeds[index : index + 1]
        return Latents(**rows, seeds=seeds, psi=self.psi, model_sha256=self.model_sha256, sha256=self.sha256)


def joined(images: list[Latents]) -> Latents:
    """Gather several latents into one, in the spaces that all of them hold."""
    columns = [_tensors(image) for image in images]
    rows: dict[str, Any] = {
        name: None if any(c[name] is None for c in columns) else torch.cat([c[name] for c in columns])  # type: ignore[misc]
        for name in RANKS
    }
    first = images[0]
    seeds = tuple(seed for image in images for seed in image.seeds)
    return Latents(**rows, seeds=seeds, psi=first.psi, model_sha256=first.model_sha256)


def encode_latents(latents: Latents, *, name: PathLike = "stdout") -> bytes:
    """Return the bytes of a latents file, which `read_latents` reads. Raises FileError, with `name`."""
    facts = {
        "format": FORMAT,
        "seeds": list(latents.seeds),
        "psi": latents.psi,
        "model_sha256": latents.model_sha256,
    }
    tensors = {key: value for key, value in _tensors(latents).items() if value is not None}
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
        told = facts_in(header, METADATA_KEY)
    except TensorFileError as error:
        raise FileError(name, f"its facts are damaged ({error}); make the file again") from error
    facts = {} if told is None else _checked_facts(name, told, count=len(next(iter(held.values()))))
    return Latents(**held, **facts, sha256=hashlib.sha256(data).hexdigest())


def is_latents_file(path: PathLike) -> bool:
    """Say whether a safetensors file holds latents, by its header alone. Raises FileError."""
    try:
        header = read_header(Path(path))
    except TensorFileError as error:
        raise FileError(path, str(error)) from error
    names = names_in(header)
    return METADATA_KEY in header[METADATA] or (0 < len(names) and names <= set(RANKS))


def _tensors(latents: Latents) -> dict[str, Tensor | None]:
    return {name: getattr(latents, name) for name in RANKS}


def _checked_tensors(name: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in our types, or raise FileError for any that cannot be latents."""
    if unknown := sorted(set(tensors) - set(RANKS)):
        raise FileError(name, f"not a latents file: it holds {', '.join(unknown[:5])}; known are {', '.join(RANKS)}")
    if not set(tensors) - {"label"}:
        raise FileError(name, "holds no latents; one of z, w, affine is needed")
    counts = set()
    for key, tensor in tensors.items():
        shape = list(tensor.shape)
        if tensor.dim() != RANKS[key] or 0 in shape or (key == "affine" and shape[2] != 3):
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
    return {"seeds": tuple(seeds), "psi": psi, "model_sha256": model}
