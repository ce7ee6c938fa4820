"""How smooth a walk from picture to picture is: the step from each frame to the next, in a network's features."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .perceptual import feature_distance

SIDE = 128  # pixels: the frames are compared at one size, whatever the size they are drawn at


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

    `features` maps pictures [N, 3, H, W] to taps [N, C, H', W'], see `perceptual.feature_distance`; the project
    takes EfficientNet-lite0's. Clamped to [-1, 1] as pictures are. Only the taps of three frames are held.
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
