"""Editing directions: the principal ones of w or of the affine maps over many pictures. Härkönen et al., 2020."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import RequestError
from ..model import Generator
from .file import Latents
from .spaces import from_seed, held_in, to_affine

DirectionSpace = Literal["w", "affine"]
SPACES: tuple[DirectionSpace, ...] = get_args(DirectionSpace)
CHUNK = 1024  # columns or rows that are held in float64 at once
FLAT = 1e-6  # of the largest deviation: what varies less is rounding


@dataclass(frozen=True)
class Directions:
    """K directions of a space, most varied first, and what is known of the pictures they were found in.

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

    Holds `samples` pictures' latents. `progress` is told 1 a picture. Raises RequestError, LabelError.
    """
    if not 1 <= count < samples:
        raise RequestError(f"{samples} pictures show at most {samples - 1} directions, not {count}")
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

    From the eigenvectors of the smaller of the two products of the centred rows with themselves, D x D or
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
        raise RequestError("the pictures' latents are no finite numbers, or overflow: there are no directions")
    values, vectors = torch.linalg.eigh(product)  # rising
    values, vectors = values.flip(0)[:count].clamp(min=0), vectors.flip(1)[:, :count]
    varied = int((values.sqrt() > FLAT * values[0].sqrt()).sum()) if total > 0 else 0
    if varied < count:
        raise RequestError(f"only {varied} directions vary in {samples} pictures, not {count}")
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
    picture: Latents,
    directions: Directions,
    amounts: Mapping[int, float],
    *,
    levels: Sequence[int] | None = None,
) -> Latents:
    """Return a picture (N = 1) moved along directions by so many standard deviations each: {direction: amount}.

    With `levels`, at those alone. Completed to its affine maps. Raises RequestError.
    """
    like = generator.mapping.w_avg
    result = held_in(picture, directions.space).to(like).clone()
    rows: list[int] = list(range(result.shape[1]) if levels is None else levels)
    for index, amount in amounts.items():
        if not 0 <= index < len(directions):
            raise RequestError(f"direction {index} is outside 0-{len(directions) - 1}")
        step = directions.components[index].to(like) * (amount * float(directions.deviations[index]))
        result[:, rows] += step[rows]
    if directions.space == "affine":
        return Latents(affine=result, label=picture.label)
    return to_affine(generator, replace(picture, z=None, w=result, affine=None, seeds=(), psi=None))


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
            raise RequestError(f"amount {part.strip()} is none that pictures can be drawn with; -3 to 3 is usual")
    return amounts
