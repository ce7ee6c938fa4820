"""Editing directions: the principal ones of w or of the affine maps over many images. Härkönen et al., 2020."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from polyinr_core.errors import FileError, RequestError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator
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

from .io import Latents
from .latents import from_seed, held_in, to_affine

DirectionSpace = Literal["w", "affine"]
SPACES: tuple[DirectionSpace, ...] = get_args(DirectionSpace)
CHUNK = 1024  # columns or rows that are held in float64 at once
FLAT = 1e-6  # of the largest deviation: what varies less is rounding


@dataclass(frozen=True)
class Directions:
    """K directions of a space, most varied first, and what is known of the images they were found in.

    `mean` [*S], `components` [K, *S] of Euclidean length 1, `deviations` [K] (the standard deviation along each)
    and `shares` [K] (of all variance), where S is [L, w] or [L, 3, n]. The sign is such that a component's
    largest number is positive.
    """

    space: DirectionSpace
    mean: Tensor
    components: Tensor
    deviations: Tensor
    shares: Tensor
    samples: int
    psi: float = 1.0
    label: int | None = None
    model_sha256: str = ""

    def __len__(self) -> int:
        return len(self.components)


@torch.no_grad()
def find_directions(
    generator: Generator,
    *,
    space: DirectionSpace,
    samples: int,
    count: int,
    label: int | None = None,
    psi: float = 1.0,
    model_sha256: str = "",
    progress: Callable[[int], None] | None = None,
) -> Directions:
    """Find the `count` principal directions of seeds 0 to samples-1, each in the class it draws if label is None.

    Holds `samples` images' latents. `progress` is told 1 an image. Raises RequestError, LabelError.
    """
    if not 1 <= count < samples:
        raise RequestError(f"{samples} images show at most {samples - 1} directions, not {count}")
    rows: Tensor | None = None
    shape = torch.Size()
    for seed in range(samples):
        latents = held_in(from_seed(generator, seed, label=label, psi=psi), space)[0].float().cpu()
        if rows is None:
            shape = latents.shape
            rows = torch.empty(samples, latents.numel())
        rows[seed] = latents.flatten()
        if progress is not None:
            progress(1)
    assert rows is not None
    mean, components, deviations, shares = principal(rows, count)
    return Directions(
        space=space,
        mean=mean.view(shape).float(),
        components=components.view(count, *shape).float(),
        deviations=deviations.float(),
        shares=shares.float(),
        samples=samples,
        psi=psi,
        label=label,
        model_sha256=model_sha256,
    )


def principal(rows: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean [D], components [K, D], deviations [K] and shares [K], float64, of rows [N, D].

    From the eigenvectors of the smaller of the two products of the centerd rows with themselves, D x D or
    N x N, summed in float64. Deviations divide by N - 1. Raises RequestError if fewer directions vary.
    """
    samples, dim = rows.shape
    mean = rows.mean(dim=0, dtype=torch.float64)
    chunks = range(0, max(samples, dim), CHUNK)
    wide = dim > samples
    product = torch.zeros((samples, samples) if wide else (dim, dim), dtype=torch.float64)
    for start in chunks:
        if wide:
            part = rows[:, start : start + CHUNK].double() - mean[start : start + CHUNK]
            product += part @ part.T
        elif start < samples:
            part = rows[start : start + CHUNK].double() - mean
            product += part.T @ part
    total = float(product.trace())
    if not math.isfinite(total):
        raise RequestError("the images' latents are no finite numbers, or overflow: there are no directions")
    values, vectors = torch.linalg.eigh(product)  # rising
    values, vectors = values.flip(0)[:count].clamp(min=0), vectors.flip(1)[:, :count]
    varied = int((values.sqrt() > FLAT * values[0].sqrt()).sum()) if total > 0 else 0
    if varied < count:
        raise RequestError(f"only {varied} directions vary in {samples} images, not {count}")
    components = vectors.T
    if wide:
        parts = [
            vectors.T @ (rows[:, start : start + CHUNK].double() - mean[start : start + CHUNK])
            for start in range(0, dim, CHUNK)
        ]
        components = torch.cat(parts, dim=1)
    components = components / components.norm(dim=1, keepdim=True)
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return mean, components * largest.sign(), (values / (samples - 1)).sqrt(), values / total


def moved(
    generator: Generator,
    image: Latents,
    directions: Directions,
    amounts: Mapping[int, float],
    *,
    levels: Sequence[int] | None = None,
) -> Latents:
    """Return an image (N = 1) moved along directions by so many standard deviations each: {direction: amount}.

    With `levels`, at those alone. Completed to its affine maps. Raises RequestError.
    """
    like = generator.mapping.w_avg
    result = held_in(image, directions.space).to(like).clone()
    rows: list[int] = list(range(result.shape[1]) if levels is None else levels)
    for index, amount in amounts.items():
        if not 0 <= index < len(directions):
            raise RequestError(f"direction {index} is outside 0-{len(directions) - 1}")
        step = directions.components[index].to(like) * (amount * float(directions.deviations[index]))
        result[:, rows] += step[rows]
    if directions.space == "affine":
        return Latents(affine=result, label=image.label)
    return to_affine(generator, replace(image, z=None, w=result, affine=None, seeds=(), psi=None))


def parse_takes(text: str) -> dict[int, float]:
    """Read "2:1.5,0:-1" as {2: 1.5, 0: -1.0}: directions and how far to go. Raises RequestError."""
    takes: dict[int, float] = {}
    for part in text.split(","):
        number, colon, amount = part.partition(":")
        if not colon or not number.strip().isascii() or not number.strip().isdecimal():
            raise RequestError(f"{part!r} is not understood; write DIRECTION:AMOUNT, such as 2:1.5 or 2:1.5,0:-1")
        if int(number) in takes:
            raise RequestError(f"direction {int(number)} is taken twice")
        (takes[int(number)],) = parse_amounts([amount])
    return takes


def parse_amounts(parts: Iterable[str]) -> list[float]:
    """Read amounts, in standard deviations. Raises RequestError."""
    amounts = []
    for part in parts:
        try:
            amounts.append(float(part))
        except ValueError:
            raise RequestError(f"amount {part.strip()!r} is no number; write such as -3 or 1.5") from None
        if not abs(amounts[-1]) <= 1e6:
            raise RequestError(f"amount {part.strip()} is none that images can be drawn with; -3 to 3 is usual")
    return amounts


FORMAT = 1
METADATA_KEY = "polyinr_directions"
TENSORS = ("mean", "components", "deviations", "shares")
OTHER = "not a directions file; `polyinr directions -o x.safetensors` makes one"


def encode_directions(directions: Directions, *, name: PathLike = "stdout") -> bytes:
    """Return the bytes of a directions file, which `read_directions` reads. Raises FileError, with `name`."""
    facts = {
        "format": FORMAT,
        "space": directions.space,
        "samples": directions.samples,
        "psi": directions.psi,
        "label": directions.label,
        "model_sha256": directions.model_sha256,
    }
    tensors = {key: getattr(directions, key) for key in TENSORS}
    _check_tensors(Path(name), tensors)
    _checked_facts(Path(name), facts, directions.mean)
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
    fields: dict[str, Any] = {**tensors, **_checked_facts(name, facts, tensors["mean"])}
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


def _checked_facts(name: Path, facts: dict[str, Any], mean: Tensor) -> dict[str, Any]:
    """Return the facts as fields of Directions. Raises FileError."""
    space, samples, label = facts.get("space"), facts.get("samples"), facts.get("label")
    psi, model = facts.get("psi"), facts.get("model_sha256")
    good = (
        isinstance(space, str)
        and space in SPACES
        and mean.dim() == {"w": 2, "affine": 3}[space]
        and is_whole(samples)
        and is_number(psi)
        and (label is None or is_whole(label))
        and isinstance(model, str)
    )
    if not good:
        raise FileError(name, "its facts (space, samples, psi, model) are damaged; make the file again")
    return {"space": space, "samples": samples, "psi": float(psi), "label": label, "model_sha256": model}  # type: ignore[arg-type]
