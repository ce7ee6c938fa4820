"""Walks from image to image through z, w or affine space, and the zoom on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from polyinr_core.errors import RequestError
from polyinr_core.models.generator import Generator

from .io import Latents, Space
from .latents import held_in, same_label, to_affine

Curve = Literal["linear", "spherical"]
Easing = Literal["linear", "smooth"]
OPPOSITE = 1e-6  # how near to -1 a cosine may come before the way round is arbitrary


@dataclass(frozen=True)
class Step:
    """Where a frame stands: `part` (0 to 1) of the way from image `first` to image `second`.

    `along` is the part of the whole walk that lies behind it.
    """

    first: int
    second: int
    part: float
    along: float


def steps_of_walk(images: int, frames: int, *, loop: bool = False, easing: Easing = "linear") -> list[Step]:
    """Return where the frames of a walk stand, evenly spread over it.

    The first frame is the first image and the last frame the last one; a loop goes on to the first image
    and stops a frame before it, so that it can be repeated. With `smooth` easing the walk slows down at each
    image: 3 t^2 - 2 t^3. Raises RequestError.
    """
    if images < 2:
        raise RequestError(f"a walk leads from image to image; {images} is too few, name two or more")
    if frames < images:
        raise RequestError(f"{frames} frames are too few for a walk over {images} images")
    legs, whole = (images, frames) if loop else (images - 1, frames - 1)
    steps = []
    for frame in range(frames):
        leg, rest = divmod(frame * legs, whole)
        if leg == legs:  # the last frame ends the last leg
            leg, rest = legs - 1, whole
        part = rest / whole
        if easing == "smooth":
            part = part * part * (3 - 2 * part)
        steps.append(Step(leg, (leg + 1) % images, part, frame / whole))
    return steps


@dataclass(frozen=True)
class Walk:
    """A walk over images (latents of N = 1) through one space of a model."""

    generator: Generator
    images: tuple[Latents, ...]
    space: Space
    curve: Curve

    def at(self, step: Step) -> Latents:
        """Return a frame's latents, completed to its affine maps. Raises RequestError."""
        first, second = self.images[step.first], self.images[step.second]
        like = self.generator.mapping.w_avg
        a, b = held_in(first, self.space).to(like), held_in(second, self.space).to(like)
        between = spherical(a, b, step.part) if self.curve == "spherical" else torch.lerp(a, b, step.part)
        label = same_label(first, second)
        if self.space == "z":
            ends = [1.0 if image.psi is None else image.psi for image in (first, second)]
            psi = ends[0] + step.part * (ends[1] - ends[0])
            return to_affine(self.generator, Latents(z=between, label=label), psi=psi)
        if self.space == "w":
            return to_affine(self.generator, Latents(w=between, label=label))
        return Latents(affine=between, label=label)


def walk_over(generator: Generator, images: Sequence[Latents], *, space: Space, curve: Curve) -> Walk:
    """Return a walk over images, each with latents of N = 1 in the space. Raises RequestError.

    In z the class is no part of the latents: there all images must have one.
    """
    if curve == "spherical" and space != "z":
        raise RequestError(f"a spherical walk is one through z, whose points lie on a sphere; {space} takes linear")
    for image in images:
        held_in(image, space)
    if space == "z":
        classes = {int(image.label[0]) for image in images if image.label is not None}
        if len(classes) > 1:
            raise RequestError(
                f"the images are of the classes {', '.join(map(str, sorted(classes)))}, and z has no way from "
                "class to class; take --space w or affine, or one --label"
            )
    return Walk(generator, tuple(images), space, curve)


def spherical(a: Tensor, b: Tensor, part: float) -> Tensor:
    """Return the points `part` of the way from a to b [N, z]: round the origin evenly, while the length changes
    evenly. Shoemake, 1985. Raises RequestError where a and b are opposite.
    """
    first, second = a.double(), b.double()
    lengths = [x.norm(dim=-1, keepdim=True) for x in (first, second)]
    if part in (0.0, 1.0) or min(float(length.min()) for length in lengths) == 0:
        return torch.lerp(a, b, part)
    first, second = first / lengths[0], second / lengths[1]
    cosine = (first * second).sum(dim=-1, keepdim=True).clamp(-1, 1)
    if float(cosine.min()) < OPPOSITE - 1:
        raise RequestError("two z are opposite, so every way round is as short; take the linear curve")
    angle = torch.acos(cosine)
    near = angle < 1e-4  # there the chord is the arc
    sine = torch.where(near, 1.0, torch.sin(angle))
    shares = [torch.where(near, t, torch.sin(t * angle) / sine) for t in (1 - part, part)]
    return ((shares[0] * first + shares[1] * second) * torch.lerp(lengths[0], lengths[1], part)).to(a)


def zoomed(latents: Latents, zoom: float, center: tuple[float, float]) -> Latents:
    """Return completed latents whose image shows the plane enlarged about a point.

    A zoom is a linear map of (x, y, 1), so it multiplies into the affine maps exactly: (p S) A = p (S A).
    """
    if zoom == 1:
        return latents
    maps = held_in(latents, "affine")
    x, y = center
    rest = 1 - 1 / zoom
    scaling = torch.tensor([[1 / zoom, 0, 0], [0, 1 / zoom, 0], [x * rest, y * rest, 1]], dtype=torch.float64)
    return Latents(affine=(scaling.to(maps.device) @ maps.double()).to(maps), label=latents.label)


def zoom_at(step: Step, start: float, end: float) -> float:
    """Return a frame's zoom: by the same factor from each frame to the next, so that it looks even."""
    return start * (end / start) ** step.along
