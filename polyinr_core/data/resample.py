"""Area averages: from an image's own pixels to coarser ones, exact to the last bit however batches are cut."""

from math import gcd

import torch
from torch import Tensor


def area_weights(fine: int, coarse: int) -> Tensor:
    """Return [coarse, fine] whole numbers: how much of each fine pixel lies in each coarse one.

    Each row sums to fine / gcd(fine, coarse). The dtype is the smallest in which the sum over a window of uint8
    pixels is exact, hence independent of the order of additions and of the batch.
    """
    divisor = gcd(fine, coarse)
    width, step = fine // divisor, coarse // divisor  # of a coarse and of a fine pixel, in common units
    left = torch.arange(coarse)[:, None] * width
    start = torch.arange(fine)[None, :] * step
    overlap = torch.minimum(left + width, start + step) - torch.maximum(left, start)
    exact = torch.float32 if 255 * width * width < 2**24 else torch.float64
    return overlap.clamp(min=0).to(exact)


def area_average(pixels: Tensor, weights: Tensor) -> Tensor:
    """Average uint8 [..., R, R] to float32 [..., r, r] in [-1, 1], x / 127.5 - 1, by `area_weights(R, r)`."""
    if weights.shape[0] == weights.shape[1]:
        return normalized(pixels)
    total = weights @ (pixels.to(weights.dtype) @ weights.T)
    return scaled(total / weights[0].sum() ** 2).to(torch.float32)


def normalized(values: Tensor) -> Tensor:
    """Bring images as a reader gives them, uint8 or averages already, to float32 in [-1, 1]."""
    return values if values.is_floating_point() else scaled(values.to(torch.float32))


def scaled(values: Tensor) -> Tensor:
    """Map 0 .. 255 to [-1, 1], to the same bits on every device.

    The divisor is a tensor on the values' device: by a mere number a GPU would multiply its reciprocal.
    """
    return values / torch.full((), 127.5, dtype=values.dtype, device=values.device) - 1
