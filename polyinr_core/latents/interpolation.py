"""Edit images by their latents: mix levels, interpolate in z, w or affine space, zoom in affine space."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from polyinr_core.errors import RequestError
from polyinr_core.models.coordinates import without_metal

from .latents import MAX_NUMBER, Latents, Space, common_dtype, common_label, concatenate, in_space

MixSpace = Literal["affine", "w"]
Curve = Literal["linear", "spherical"]
Easing = Literal["linear", "smooth"]
MIN_DISTANCE = 1e-6  # of a cosine from -1; closer, the shortest arc is arbitrary


def mix(
    target: Latents,
    source: Latents,
    *,
    levels: Sequence[int],
    strength: float = 1.0,
    space: MixSpace = "affine",
) -> Latents:
    """Return the target with the source's latents at some levels: target + strength (source - target) there.

    Style mixing; paper, Figure 6.

    Args:
        target: N images.
        source: N images, or one.
        levels: Levels in 0 to L-1. In the paper's Figure 6 the last ones, such as range(8, 10), carry color.
        strength: 0 keeps the target, 1 takes the source.
        space: In "affine" the other levels stay as they are. In "w", in the form of the release, the levels
            after the first mixed one change too, as it hands coordinates from level to level.

    Returns:
        Latents in `space` alone; `Model.render` completes them.

    Raises RequestError.
    """
    if not abs(strength) <= MAX_NUMBER:
        raise RequestError(f"a mixing strength of {strength} is outside -1e6 to 1e6; 0 to 1 is usual")
    a, b = common_dtype(in_space(target, space), in_space(source, space))
    rows = list(levels)
    if beyond := [level for level in rows if not 0 <= level < a.shape[1]]:
        raise RequestError(
            f"level {beyond[0]} is out of range 0-{a.shape[1] - 1} (the latents have {a.shape[1]} levels)"
        )
    mixed = a.clone()
    mixed[:, rows] = torch.lerp(a[:, rows], b[:, rows], strength)
    label = common_label(source, target)
    sha256 = target.model_sha256 if target.model_sha256 == source.model_sha256 else ""
    photos = tuple(replace(photo, scores={}) for photo in target.photos)  # the shape stays
    mixture = Latents(label=label, model_sha256=sha256, photos=photos)
    return replace(mixture, affine=mixed) if space == "affine" else replace(mixture, w=mixed)


def stack_affine(images: Sequence[Latents]) -> Latents:
    """Stack the affine parameters of K images (N = 1) for a blend: [1, L, 3 K, n]. Raises RequestError."""
    parameters: list[Tensor] = [in_space(image, "affine") for image in images]
    return Latents(affine=torch.cat([one.to(parameters[0]) for one in parameters], dim=2))


def interpolate(
    latents: Latents | Sequence[Latents],
    *,
    steps: int,
    space: Space = "w",
    curve: Curve | None = None,
    easing: Easing = "linear",
    loop: bool = False,
) -> Latents:
    """Interpolate from image to image.

    Args:
        latents: Two images or more.
        steps: The number of frames, the images themselves included.
        space: "z", "w" or "affine". In z all images must be of one class.
        curve: "spherical" (z alone, its default) or "linear".
        easing: "smooth" slows down at each image: 3 t^2 - 2 t^3.
        loop: Go on to the first image, without showing it twice.

    Returns:
        Latents of N = `steps` in `space` alone; `Model.render` completes them.

    Raises RequestError.
    """
    path = LatentPath.through([latents[i] for i in range(len(latents))], space=space, curve=curve)
    positions = frame_positions(len(path.images), steps, loop=loop, easing=easing)
    frames = [path.at(position) for position in positions]
    joined = concatenate(frames)
    psis = {frame.psi for frame in frames}
    if space == "z" and len(psis) > 1:
        raise RequestError("the images differ in psi, which z does not hold; interpolate in w or affine")
    return joined


@dataclass(frozen=True)
class FramePosition:
    """Where a frame lies: `fraction` (0 to 1) of the way from image `first` to image `second`.

    `progress` is the fraction of the whole path.
    """

    first: int
    second: int
    fraction: float
    progress: float


def frame_positions(images: int, frames: int, *, loop: bool = False, easing: Easing = "linear") -> list[FramePosition]:
    """Return the positions of evenly spaced frames on a path over some images.

    The first frame is the first image and the last frame the last one; a loop goes on to the first image
    and stops a frame before it, so that it can be repeated. Raises RequestError.
    """
    if images < 2:
        raise RequestError(f"an interpolation needs two images or more, not {images}")
    if frames < images:
        raise RequestError(f"{frames} frames are too few for {images} images; every image is a frame")
    segments, intervals = (images, frames) if loop else (images - 1, frames - 1)
    positions = []
    for frame in range(frames):
        segment, rest = divmod(frame * segments, intervals)
        if segment == segments:  # the last frame ends the last segment
            segment, rest = segments - 1, intervals
        t = rest / intervals
        if easing == "smooth":
            t = t * t * (3 - 2 * t)
        positions.append(FramePosition(segment, (segment + 1) % images, t, frame / intervals))
    return positions


@dataclass(frozen=True)
class LatentPath:
    """A path over images (latents of N = 1) in one space."""

    images: tuple[Latents, ...]
    space: Space
    curve: Curve

    @classmethod
    def through(cls, images: Sequence[Latents], *, space: Space, curve: Curve | None = None) -> "LatentPath":
        """Return the path through images; the curve defaults to spherical in z, linear elsewhere.

        Raises RequestError where an image is not held in the space, and for images of several classes in z,
        which the class is no part of.
        """
        curve = curve or ("spherical" if space == "z" else "linear")
        if curve == "spherical" and space != "z":
            raise RequestError(f"spherical interpolation is for z, whose points lie on a sphere; use linear in {space}")
        for image in images:
            in_space(image, space)
        if space == "z":
            classes = {int(image.label[0]) for image in images if image.label is not None}
            if len(classes) > 1:
                raise RequestError(
                    f"the images are of the classes {', '.join(map(str, sorted(classes)))}, which z does not hold; "
                    "interpolate in w or affine, or give all images one label"
                )
        return cls(tuple(images), space, curve)

    def at(self, position: FramePosition) -> Latents:
        """Return a frame's latents, in the path's space alone. Raises RequestError."""
        first, second = self.images[position.first], self.images[position.second]
        t = position.fraction
        a, b = common_dtype(in_space(first, self.space), in_space(second, self.space))
        between = slerp(a, b, t) if self.curve == "spherical" else torch.lerp(a, b, t)
        label = common_label(first, second)
        if self.space == "z":
            start, end = (1.0 if image.psi is None else image.psi for image in (first, second))
            return Latents(z=between, label=label, psi=start + t * (end - start))
        return Latents(**{self.space: between}, label=label)  # type: ignore[arg-type]


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Interpolate a and b [N, z_dim] spherically, while the length changes linearly. Shoemake, 1985.

    Raises RequestError where a and b are opposite.
    """
    first, second = a.double(), b.double()
    lengths = [x.norm(dim=-1, keepdim=True) for x in (first, second)]
    if t in (0.0, 1.0) or min(float(length.min()) for length in lengths) == 0:
        return torch.lerp(a, b, t)
    first, second = first / lengths[0], second / lengths[1]
    cosine = (first * second).sum(dim=-1, keepdim=True).clamp(-1, 1)
    if float(cosine.min()) < MIN_DISTANCE - 1:
        raise RequestError("two z are opposite, so every arc is as short; use the linear curve")
    angle = torch.acos(cosine)
    is_small = angle < 1e-4  # there the chord is the arc
    sine = torch.where(is_small, 1.0, torch.sin(angle))
    weights = [torch.where(is_small, s, torch.sin(s * angle) / sine) for s in (1 - t, t)]
    return ((weights[0] * first + weights[1] * second) * torch.lerp(lengths[0], lengths[1], t)).to(a)


def zoom(latents: Latents, factor: float, center: tuple[float, float]) -> Latents:
    """Return latents whose image is magnified about a point of the plane.

    A zoom is a linear map S of (x, y, 1), so it multiplies into the affine parameters exactly: (p S) A = p (S A).
    """
    if factor == 1:
        return latents
    affine = in_space(latents, "affine")
    x, y = center
    rest = 1 - 1 / factor
    scaling = torch.tensor([[1 / factor, 0, 0], [0, 1 / factor, 0], [x * rest, y * rest, 1]], dtype=torch.float64)
    wide = without_metal(affine).double()
    return Latents(affine=(scaling.to(wide.device) @ wide).to(affine), label=latents.label)


def zoom_at(position: FramePosition, start: float, end: float) -> float:
    """Return a frame's zoom, which grows by the same factor from each frame to the next."""
    return start * (end / start) ** position.progress
