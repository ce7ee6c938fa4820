"""Perceptual path length: how much the image changes for a small step in the latent space."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError

from .lpips import feature_distance

EPSILON = 1e-4
PPL_RESOLUTION = 256  # pixels: larger images are shrunk by a whole number before they are compared
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

    From `starts` [N, ...] in w a step of the share `epsilon` is made towards `ends`; `draw` makes images
    [N, 3, H, W] in [-1, 1] of both ends of the step, and `distance`, LPIPS with VGG16 in published numbers,
    gives [N] differences that grow with the square of the step, hence the division by epsilon squared. Karras
    et al., "A Style-Based Generator Architecture" (2019), and "Analyzing and Improving" (2020).
    """
    steps = torch.lerp(starts, ends, epsilon)
    images = shrink(draw(torch.cat([starts, steps])))
    here, there = images.chunk(2)
    return distance(here, there).double().flatten() / epsilon**2


def shrink(images: Tensor, *, side: int = PPL_RESOLUTION) -> Tensor:
    """Return images [N, C, H, W] larger than `side` as means of blocks, by the largest factor that fits."""
    factor = images.shape[-2] // side
    return torch.nn.functional.avg_pool2d(images, factor) if factor > 1 else images


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


SMOOTHNESS_RESOLUTION = 128  # pixels: the frames are compared at one size, whatever the size they are drawn at


@dataclass(frozen=True)
class Smoothness:
    """The steps of a walk, the first from frame 0 to frame 1; a loop's last is back to frame 0."""

    steps: tuple[float, ...]

    @property
    def largest(self) -> float:
        return max(self.steps)

    @property
    def mean(self) -> float:
        return sum(self.steps) / len(self.steps)

    @property
    def largest_from(self) -> int:
        """The frame from which the largest step is made."""
        return self.steps.index(self.largest)


@torch.no_grad()
def path_smoothness(
    frames: Iterable[Tensor], features: Callable[[Tensor], Sequence[Tensor]], *, loop: bool = False
) -> Smoothness:
    """Measure a walk's frames [H, W, 3] in [-1, 1], one after another, two or more of them.

    `features` maps images [N, 3, H, W] to taps [N, C, H', W'], see `perceptual.feature_distance`; the project
    takes EfficientNet-lite0's. Clamped to [-1, 1] as images are. Only the taps of three frames are held.
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
