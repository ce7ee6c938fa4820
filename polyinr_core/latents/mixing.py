"""Style mixing: exchange levels between images. Paper, Figure 6."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from polyinr_core.errors import RequestError

from .latents import MAX_NUMBER, Latents, common_dtype, common_label, in_space

MixSpace = Literal["affine", "w"]


def mix(
    target: Latents,
    source: Latents,
    *,
    levels: Sequence[int],
    strength: float = 1.0,
    space: MixSpace = "affine",
) -> Latents:
    """Return the target with the source's latents at some levels: target + strength (source - target) there.

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
    if space == "affine":
        return Latents(affine=mixed, label=label, model_sha256=sha256)
    return Latents(w=mixed, label=label, model_sha256=sha256)


def stack_affine(images: Sequence[Latents]) -> Latents:
    """Stack the affine parameters of K images (N = 1) for a blend: [1, L, 3 K, n]. Raises RequestError."""
    parameters: list[Tensor] = [in_space(image, "affine") for image in images]
    return Latents(affine=torch.cat([one.to(parameters[0]) for one in parameters], dim=2))
