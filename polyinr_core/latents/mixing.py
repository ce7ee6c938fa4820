"""Mixing: levels of one image in the place of another's. Paper, Figure 6."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from polyinr_core.errors import RequestError
from polyinr_core.models.generator import Generator

from .io import Latents
from .latents import held_in, same_label, to_affine

MixSpace = Literal["affine", "w"]
SPACES: tuple[MixSpace, ...] = get_args(MixSpace)


def mixed(
    generator: Generator,
    source: Latents,
    target: Latents,
    *,
    levels: Sequence[int],
    amount: float = 1.0,
    space: MixSpace = "affine",
) -> Latents:
    """Return the target with the source's latents at some levels: target + amount (source - target) there.

    Both are images with latents of N = 1 in the space; the result is completed to its affine maps. In affine
    space the other levels stay as they are. In w those after the first mixed one change too, where the release
    hands coordinates from level to level. Raises RequestError.
    """
    if not abs(amount) <= 1e6:
        raise RequestError(f"an amount of {amount} is none that images can be drawn with; 0 to 1 is usual")
    like = generator.mapping.w_avg
    a, b = held_in(target, space).to(like), held_in(source, space).to(like)
    rows = list(levels)
    result = a.clone()
    result[:, rows] = torch.lerp(a[:, rows], b[:, rows], amount)
    label = same_label(source, target)
    if space == "affine":
        return Latents(affine=result, label=label)
    return to_affine(generator, Latents(w=result, label=label))


def stacked(images: Sequence[Latents]) -> Latents:
    """Return the affine maps of K completed images one below the other, [1, L, 3 K, n], to draw a blend of."""
    maps: list[Tensor] = [held_in(image, "affine") for image in images]
    return Latents(affine=torch.cat([one.to(maps[0]) for one in maps], dim=2))
