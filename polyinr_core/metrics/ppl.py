"""Perceptual path length of a generator, and the smoothness of an interpolation's frames."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError

from .image_similarity import feature_distance

EPSILON = 1e-4
PPL_RESOLUTION = 256  # pixels; larger images are first averaged over blocks
TRIM = (1, 99)  # percentiles


def path_lengths(
    starts: Tensor,
    ends: Tensor,
    render: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    *,
    epsilon: float = EPSILON,
) -> Tensor:
    """Return [N], float64: the lengths of N paths at their starts, as StyleGAN's `ppl2_wend`.

    Each path goes from `starts` [N, ...] in w a fraction `epsilon` towards `ends`. `render` maps w to images
    [N, 3, H, W] in [-1, 1], and `distance` (LPIPS with VGG16 in published numbers) maps pairs of images to [N],
    which grow with the square of the step, hence the division by epsilon squared. Karras et al., "A Style-Based
    Generator Architecture" (2019), and "Analyzing and Improving" (2020).
    """
    steps = torch.lerp(starts, ends, epsilon)
    here, there = shrink(render(torch.cat([starts, steps]))).chunk(2)
    return distance(here, there).double().flatten() / epsilon**2


def shrink(images: Tensor) -> Tensor:
    """Average images [N, C, H, W] above PPL_RESOLUTION over blocks, to that or the next larger size."""
    factor = images.shape[-2] // PPL_RESOLUTION
    return torch.nn.functional.avg_pool2d(images, factor) if factor > 1 else images


def path_length(lengths: Tensor) -> float:
    """Return the mean of the lengths [N] within their 1st and 99th percentiles, as in StyleGAN.

    The percentiles are rounded outwards to lengths that occur, which are included. Raises PolyinrError.
    """
    values = lengths.double().cpu().numpy()
    if not len(values) or not np.isfinite(values).all():
        raise PolyinrError("the path lengths are empty or contain NaN or Inf")
    low = np.percentile(values, TRIM[0], method="lower")
    high = np.percentile(values, TRIM[1], method="higher")
    return float(values[(values >= low) & (values <= high)].mean())


SMOOTHNESS_RESOLUTION = 128  # pixels; frames of any size are compared at this one


@dataclass(frozen=True)
class Smoothness:
    """The perceptual distances between successive frames; the last of a loop is back to frame 0."""

    steps: tuple[float, ...]

    @property
    def largest(self) -> float:
        return max(self.steps)

    @property
    def mean(self) -> float:
        return sum(self.steps) / len(self.steps)

    @property
    def largest_from(self) -> int:
        """The frame before the largest step."""
        return self.steps.index(self.largest)


@torch.no_grad()
def path_smoothness(
    frames: Iterable[Tensor], features: Callable[[Tensor], Sequence[Tensor]], *, loop: bool = False
) -> Smoothness:
    """Measure the steps between two or more frames [H, W, 3], clamped to [-1, 1], given one after another.

    `features` maps images [N, 3, H, W] to feature maps [N, C, H', W'] (see `feature_distance`). Memory
    holds the feature maps of three frames.
    """
    first: Sequence[Tensor] = ()
    last: Sequence[Tensor] = ()
    steps: list[float] = []
    for frame in frames:
        taps = features(frame.clamp(-1, 1).permute(2, 0, 1).unsqueeze(0))
        if last:
            steps.append(float(feature_distance(last, taps)))
        last, first = taps, first or taps
    if loop:
        steps.append(float(feature_distance(last, first)))
    return Smoothness(tuple(steps))
