"""Where a search begins and how far a step reaches: means, seeds, and the spread of a model's latents."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..latents.file import Latents
from ..model import UNIT, Bounds, Generator
from ..model.mapping import check_label
from ..seeds import generator_for
from .canvas import canvas_for

Space = Literal["affine", "w", "z"]
SPACES: tuple[Space, ...] = ("affine", "w", "z")
SAMPLES = 256  # latents that measure the spread, and among which a start is looked for
LOOK = 32  # the longer side at which starts are compared
AT_ONCE = 16


@dataclass(frozen=True)
class Chart:
    """A space around a start: an offset is counted in the spread of the model's own latents.

    `origin` is the start's tensor in `space`, [1, ...]; `scale`, of a shape that fits it, is what an offset of 1
    means. `label` [1] is the class of z.
    """

    generator: Generator
    space: Space
    origin: Tensor
    scale: Tensor
    label: Tensor | None = None

    def at(self, offset: Tensor) -> Latents:
        """Return the latents at an offset, with gradients: affine maps always, and what they came from."""
        here = self.origin + offset * self.scale
        if self.space == "affine":
            return Latents(affine=here, label=self.label)
        if self.space == "w":
            return Latents(w=here, affine=self.generator.affine(here), label=self.label)
        w = self.generator.w(here, self.label)
        return Latents(z=here, w=w, affine=self.generator.affine(w), label=self.label)


@torch.no_grad()
def charts(
    generator: Generator,
    space: Space,
    target: Tensor,
    *,
    restarts: int,
    seed: int,
    label: int | None = None,
    bounds: Bounds = UNIT,
) -> list[Chart]:
    """Return so many places to start from for a photo [1, 3, H, W], the most promising first.

    The first is the model's mean picture; without a `label`, that of the class whose mean is nearest to the
    photo. The others, and in z, which has no mean, all of them, are the random latents nearest to the photo.
    Nearness is that of pixels at 32 pixels a side. `seed` draws the latents. Raises LabelError.
    """
    classes, like = generator.config.classes, generator.mapping.w_avg
    if classes and label is None:
        means = torch.arange(classes, device=like.device)
        w = generator.mapping.w_avg_for(means).unsqueeze(1).expand(-1, generator.config.levels, -1)
        label = int(_errors(generator, generator.affine(w), target, bounds).argmin())
    own = None if label is None else torch.tensor([label], device=like.device)
    check_label(own, classes=classes)

    z = torch.randn(SAMPLES, generator.config.z_dim, generator=generator_for(seed, "invert")).to(like)
    w = generator.w(z, None if own is None else own.expand(SAMPLES))
    affine = generator.affine(w)
    mean = generator.mapping.w_avg_for(own).reshape(1, 1, -1).repeat(1, generator.config.levels, 1)
    random = {"affine": affine, "w": w, "z": z}[space]
    scale = _scale(random, space)
    origins = [] if space == "z" else [mean if space == "w" else generator.affine(mean)]
    if restarts > len(origins):
        order = _errors(generator, affine, target, bounds).argsort(stable=True)
        origins += [random[index : index + 1] for index in order[: restarts - len(origins)].tolist()]
    return [Chart(generator, space, origin, scale, own) for origin in origins]


def _scale(random: Tensor, space: Space) -> Tensor:
    """Return what one step is in a space, from random latents of it.

    Levels differ in spread a hundredfold. A row of an affine map (those for x, y and 1 of each level) steps by
    the geometric mean of its own spread and that of all rows: measured, this beats either of the two.
    """
    if space == "z":
        return random.new_ones(())
    variance = random.var(dim=0)
    rows = variance.mean(dim=-1, keepdim=True).sqrt()  # [L, 3, 1] or [L, 1]
    whole = variance.mean().sqrt()
    return (rows * whole).sqrt().clamp_min(1e-3 * whole) if whole > 0 else torch.ones_like(rows)


def _errors(generator: Generator, affine: Tensor, target: Tensor, bounds: Bounds) -> Tensor:
    """Return the mean squared errors [N] of pictures of affine maps [N, L, 3, n], at a small size."""
    height, width = target.shape[-2:]
    shrink = min(1.0, LOOK / max(width, height))
    width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = functional.interpolate(target, size=(height, width), mode="area")
    canvas = canvas_for(generator.config, width=width, height=height, like=target, bounds=bounds)
    errors = [
        (canvas.draw(generator.synthesis, part).clamp(-1, 1) - small).square().mean(dim=(1, 2, 3))
        for part in affine.split(AT_ONCE)
    ]
    return torch.cat(errors)
