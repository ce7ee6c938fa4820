"""What happens to an image before the discriminator looks: DiffAugment, and the blur that fades out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Draws:
    """The random numbers of one DiffAugment call: one of each for every image, all [N], on the CPU."""

    brightness: Tensor  # uniform in [0, 1), as the next two
    saturation: Tensor
    contrast: Tensor
    shift_rows: Tensor  # whole pixels, as all that follow
    shift_columns: Tensor
    hole_row: Tensor  # center of the hole
    hole_column: Tensor

    def of(self, images: slice) -> "Draws":
        """Return the draws of some of the images."""
        return Draws(*(getattr(self, field.name)[images] for field in fields(self)))

    @classmethod
    def of_all(cls, draws: Sequence["Draws"]) -> "Draws":
        """Return the draws of several calls, one after the other."""
        return cls(*(torch.cat([getattr(each, field.name) for each in draws]) for field in fields(cls)))


def hole_side(size: int) -> int:
    """The side of the hole that is cut from images of side `size`."""
    return int(size * 0.2 + 0.5)


def draw_augmentation(count: int, size: int, rng: torch.Generator) -> Draws:
    """Draw for `count` images of side `size` from `rng`, a CPU generator."""
    brightness, saturation, contrast = torch.rand(3, count, generator=rng)
    reach = int(size * 0.125 + 0.5)
    shift_rows, shift_columns = torch.randint(-reach, reach + 1, (2, count), generator=rng)
    centers = size + (1 - hole_side(size) % 2)
    hole_row, hole_column = torch.randint(0, centers, (2, count), generator=rng)
    return Draws(brightness, saturation, contrast, shift_rows, shift_columns, hole_row, hole_column)


def augment(x: Tensor, draws: Draws) -> Tensor:
    """Apply color, translation and cutout to images [N, 3, S, S] about [-1, 1]; the result is not clipped.

    Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", with the release's ranges.
    """
    x = change_brightness(x, draws.brightness)
    x = change_saturation(x, draws.saturation)
    x = change_contrast(x, draws.contrast)
    x = translate(x, draws.shift_rows, draws.shift_columns)
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
    shifts = zip(x.unbind(), rows.tolist(), columns.tolist(), strict=True)
    return torch.stack([functional.pad(image, (-c, c, -r, r)) for image, r, c in shifts])


def cut_hole(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Set a square around (row, column) to zero, cut off at the border."""
    size = x.shape[-1]
    side = hole_side(size)
    place = torch.arange(size)
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
    kernel = x.new_tensor(weights).expand(x.shape[1], 1, 1, -1)
    radius = len(weights) // 2
    x = functional.conv2d(x, kernel, padding=(0, radius), groups=x.shape[1])
    return functional.conv2d(x, kernel.mT, padding=(radius, 0), groups=x.shape[1])
