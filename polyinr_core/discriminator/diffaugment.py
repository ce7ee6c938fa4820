"""What happens to an image before the discriminator looks: DiffAugment, and the blur that fades out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from polyinr_core.runtime.device import to_device


@dataclass(frozen=True)
class Draws:
    """The random numbers of one augmentation call: one of each for every image, all [N], drawn on the CPU."""

    brightness: Tensor  # uniform in [0, 1), as the next two
    saturation: Tensor
    contrast: Tensor
    shift_rows: Tensor  # whole pixels, as all that follow
    shift_columns: Tensor
    hole_row: Tensor  # center of the hole
    hole_column: Tensor
    geometry: Tensor | None = None  # [N, 2, 3], from output to input coordinates in [-1, 1]; None: no such step

    def of(self, images: slice) -> "Draws":
        """Return the draws of some of the images."""
        return Draws(**{name: getattr(self, name)[images] for name in self.drawn()})

    def drawn(self) -> list[str]:
        """Return the names of the draws that there are."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    @classmethod
    def of_all(cls, draws: Sequence["Draws"]) -> "Draws":
        """Return the draws of several calls, one after the other."""
        return cls(**{name: torch.cat([getattr(each, name) for each in draws]) for name in draws[0].drawn()})

    def to(self, device: torch.device) -> "Draws":
        """Return the draws on a device, in one copy that the host does not wait for."""
        values = [getattr(self, name) for name in self.drawn()]
        columns = [value.float().flatten(1) if value.dim() > 1 else value.float()[:, None] for value in values]
        packed = to_device(torch.cat(columns, dim=1), device)  # exact: whole numbers far below 2^24
        parts = packed.split([column.shape[1] for column in columns], dim=1)
        moved = [part.to(value.dtype).view(value.shape) for part, value in zip(parts, values, strict=True)]
        return Draws(*moved)


def hole_size(size: int) -> int:
    """The side of the hole that is cut from images of side `size`."""
    return int(size * 0.2 + 0.5)


def draw_augmentation(count: int, size: int, rng: torch.Generator, *, p: float | None = None) -> Draws:
    """Draw for `count` images of side `size` from `rng`, a CPU generator.

    Args:
        p: Probability of each operation for each image (adaptive augmentation); then images are also turned, scaled
            and shifted by fractions of a pixel. None: DiffAugment, every operation on every image.
    """
    brightness, saturation, contrast = torch.rand(3, count, generator=rng)
    reach = int(size * 0.125 + 0.5)
    shift_rows, shift_columns = torch.randint(-reach, reach + 1, (2, count), generator=rng)
    centers = size + (1 - hole_size(size) % 2)
    hole_row, hole_column = torch.randint(0, centers, (2, count), generator=rng)
    draws = Draws(brightness, saturation, contrast, shift_rows, shift_columns, hole_row, hole_column)
    return draws if p is None else apply_probability(draws, size, rng, p=p)


SCALE_STD = 0.2  # of log2 of the scale
SHIFT_STD = 0.125  # of the shift, in image sides


def apply_probability(draws: Draws, size: int, rng: torch.Generator, *, p: float) -> Draws:
    """Let each operation happen to each image with probability p, and add turns, scales and fractional shifts.

    An operation that does not happen gets its neutral value. Shifts by fractions replace those by whole pixels.
    Karras et al., "Training Generative Adversarial Networks with Limited Data" (ADA), 2020, appendix B.
    """
    count = len(draws.brightness)
    happens = torch.rand(7, count, generator=rng) < p  # three colors, hole, turn, scale, shift
    brightness, saturation, contrast = (
        torch.where(do, draw, 0.5)
        for do, draw in zip(happens[:3], (draws.brightness, draws.saturation, draws.contrast), strict=True)
    )
    hole_row = torch.where(happens[3], draws.hole_row, -size)  # a hole beyond the border
    turns = torch.where(happens[4], torch.randint(0, 4, (count,), generator=rng), 0)
    scale = torch.exp2(torch.where(happens[5], SCALE_STD * torch.randn(count, generator=rng), 0.0))
    shifts = torch.where(happens[6], 2 * SHIFT_STD * torch.randn(2, count, generator=rng), 0.0)
    cos, sin = torch.tensor([1.0, 0.0, -1.0, 0.0])[turns] / scale, torch.tensor([0.0, 1.0, 0.0, -1.0])[turns] / scale
    geometry = torch.stack([cos, -sin, shifts[0], sin, cos, shifts[1]], dim=1).unflatten(1, (2, 3))
    none = torch.zeros_like(draws.shift_rows)
    return Draws(brightness, saturation, contrast, none, none, hole_row, draws.hole_column, geometry)


def augment(x: Tensor, draws: Draws) -> Tensor:
    """Change colors, translate, resample and cut holes in images [N, 3, S, S] about [-1, 1]; the result is not clipped.

    Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", with the release's ranges.
    """
    x = change_brightness(x, draws.brightness)
    x = change_saturation(x, draws.saturation)
    x = change_contrast(x, draws.contrast)
    x = translate(x, draws.shift_rows, draws.shift_columns)
    if draws.geometry is not None:
        x = transform(x, draws.geometry)
    return cut_hole(x, draws.hole_row, draws.hole_column)


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """Shape one number an image [N] for multiplication with images x [N, 3, H, W]."""
    return values.to(x)[:, None, None, None]


def change_brightness(x: Tensor, u: Tensor) -> Tensor:
    """Add u - 0.5."""
    return x + (per_image(u, x) - 0.5)


def change_saturation(x: Tensor, u: Tensor) -> Tensor:
    """Scale the distance from each pixel's gray by 2u."""
    gray = x.mean(dim=1, keepdim=True)
    return (x - gray) * (per_image(u, x) * 2) + gray


def change_contrast(x: Tensor, u: Tensor) -> Tensor:
    """Scale the distance from the image's mean by u + 0.5."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (per_image(u, x) + 0.5) + mean


def translate(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Give pixel (i, j) the value of (i + rows, j + columns), zero (mid gray) where that lies outside."""
    translated: Tensor = Translate.apply(x, rows.to(x.device), columns.to(x.device))
    return translated


class Translate(torch.autograd.Function):
    """`translate` by gather; its gradient is the translation back, without the sums of a scatter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        for dim, shifts in ((2, rows), (3, columns)):
            size = x.shape[dim]
            source = torch.arange(size, device=x.device) + shifts[:, None]  # [N, size]
            shape = (len(x), 1, size, 1) if dim == 2 else (len(x), 1, 1, size)
            index = source.clamp(0, size - 1).view(shape).expand(x.shape)
            is_inside = ((source >= 0) & (source < size)).view(shape)
            x = torch.where(is_inside, x.gather(dim, index), 0.0)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.saved_tensors
        return Translate.apply(gradients[0], -rows, -columns), None, None


def transform(x: Tensor, geometry: Tensor) -> Tensor:
    """Resample images bilinearly through affine maps [N, 2, 3] of coordinates in [-1, 1]; zero lies outside.

    Images whose map is the identity stay as they are, but for rounding.
    """
    grid = functional.affine_grid(geometry.to(x), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def cut_hole(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Set a square around (row, column) to zero, cut off at the border."""
    size = x.shape[-1]
    side = hole_size(size)
    row, column = row.to(x.device), column.to(x.device)
    place = torch.arange(size, device=x.device)
    first_row, first_column = (row - side // 2)[:, None], (column - side // 2)[:, None]
    rows = (place >= first_row) & (place < first_row + side)  # [N, S]
    columns = (place >= first_column) & (place < first_column + side)
    hole = rows[:, None, :, None] & columns[:, None, None, :]  # [N, 1, S, S]
    return x * (~hole).to(x)


def blurs(sigma: float) -> bool:
    """Say whether a blur of this width changes an image at all."""
    return math.floor(3 * sigma) > 0


def blur_kernel(sigma: float) -> list[float]:
    """The weights 2^-(o/sigma)^2 at offsets -R..R, R = floor(3 sigma), of sum 1; a single 1 where R is 0."""
    radius = math.floor(3 * sigma)
    if radius == 0:
        return [1.0]
    weights = [2.0 ** -((offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur images [N, 3, H, W] along both axes, zeros beyond the border; nothing where sigma < 1/3."""
    weights = blur_kernel(sigma)
    if len(weights) == 1:
        return x
    kernel = to_device(torch.tensor(weights, dtype=x.dtype), x.device).expand(x.shape[1], 1, 1, -1)
    radius = len(weights) // 2
    x = functional.conv2d(x, kernel, padding=(0, radius), groups=x.shape[1])
    return functional.conv2d(x, kernel.mT, padding=(radius, 0), groups=x.shape[1])
