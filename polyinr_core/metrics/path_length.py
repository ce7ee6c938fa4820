"""Perceptual path length: how much the picture changes for a small step in the latent space."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import PolyinrError

EPSILON = 1e-4
SIDE = 256  # pixels: larger pictures are shrunk by a whole number before they are compared
TRIM = (1, 99)  # percentiles


def path_lengths(
    starts: Tensor,
    ends: Tensor,
    draw: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    *,
    epsilon: float = EPSILON,
) -> Tensor:
    """Return [N], float64: the lengths of N paths at their starts, as `ppl2_wend` of StyleGAN has it.

    From `starts` [N, ...] in w a step of the share `epsilon` is made towards `ends`; `draw` makes pictures
    [N, 3, H, W] in [-1, 1] of both ends of the step, and `distance`, LPIPS with VGG16 in published numbers,
    gives [N] differences that grow with the square of the step, hence the division by epsilon squared. Karras
    et al., "A Style-Based Generator Architecture" (2019), and "Analyzing and Improving" (2020).
    """
    steps = torch.lerp(starts, ends, epsilon)
    pictures = shrink(draw(torch.cat([starts, steps])))
    here, there = pictures.chunk(2)
    return distance(here, there).double().flatten() / epsilon**2


def shrink(pictures: Tensor, *, side: int = SIDE) -> Tensor:
    """Return pictures [N, C, H, W] larger than `side` as means of blocks, by the largest factor that fits."""
    factor = pictures.shape[-2] // side
    return torch.nn.functional.avg_pool2d(pictures, factor) if factor > 1 else pictures


def path_length(lengths: Tensor) -> float:
    """Return the mean of the lengths [N] without those outside the 1st to 99th percentile.

    The limits are lengths that occur, the next lower and the next higher, and stay in. Raises PolyinrError.
    """
    values = lengths.double().cpu().numpy()
    if not len(values) or not np.isfinite(values).all():
        raise PolyinrError("the lengths of paths are no finite numbers, or none")
    low = np.percentile(values, TRIM[0], method="lower")
    high = np.percentile(values, TRIM[1], method="higher")
    return float(values[(values >= low) & (values <= high)].mean())
