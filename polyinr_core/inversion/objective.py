"""How far a drawn picture is from a photo: a distance in a network's features, and pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..metrics.perceptual import unit_channels, unit_distance

SMALLEST = 64  # the shorter side that features see: a smaller picture is enlarged for them
LARGEST = 512  # and a larger one reduced: their memory grows with the area


class Features(Protocol):
    """A frozen network: pictures [N, 3, H, W] in [-1, 1] to maps at several depths, [N, c, h, w] each."""

    def __call__(self, x: Tensor) -> Sequence[Tensor]: ...


@dataclass(frozen=True)
class Terms:
    """What an objective finds, as scalars: `loss` is minimised, `pixels` is the mean squared error of [-1, 1]."""

    loss: Tensor
    pixels: Tensor
    perceptual: Tensor | None


@dataclass(frozen=True)
class Perceptual:
    """A distance of pictures in the features of a network, LPIPS's with its linear heads as `weights`."""

    features: Features
    weights: tuple[Tensor, ...] | None = None

    def look(self, x: Tensor) -> list[Tensor]:
        """Return the features of pictures [N, 3, H, W], each place's channels of unit length."""
        return unit_channels(self.features(_seen(x)))

    def between(self, one: Sequence[Tensor], two: Sequence[Tensor]) -> Tensor:
        """Return the distance of features that `look` gave, a mean over pictures; a scalar."""
        return unit_distance(one, two, weights=self.weights).mean()


@dataclass(frozen=True)
class Objective:
    """The mean squared error of the pixels plus, unless `name` is pixels, a perceptual distance."""

    name: str
    perceptual: Perceptual | None = None

    def to(self, device: torch.device) -> "Objective":
        """Return the objective on a device; its network itself moves."""
        if self.perceptual is None:
            return self
        features, weights = self.perceptual.features, self.perceptual.weights
        if isinstance(features, nn.Module):
            features.to(device)
        moved = None if weights is None else tuple(weight.to(device) for weight in weights)
        return replace(self, perceptual=replace(self.perceptual, weights=moved))

    def aim(self, target: Tensor) -> "Aim":
        """Return the objective for one photo [1, 3, H, W]; its features are computed once."""
        with torch.no_grad():
            return Aim(self, target, None if self.perceptual is None else self.perceptual.look(target))


@dataclass(frozen=True)
class Aim:
    """The objective of one photo."""

    objective: Objective
    target: Tensor
    features: list[Tensor] | None

    def ended(self, drawn: Tensor) -> Tensor:
        """End a drawn picture's colours at -1 and 1 where the photo's do: beyond them it cannot tell."""
        drawn = torch.where(self.target >= 1, drawn.clamp(max=1), drawn)
        return torch.where(self.target <= -1, drawn.clamp(min=-1), drawn)

    def terms(self, drawn: Tensor) -> Terms:
        """Judge a drawn picture [1, 3, H, W]."""
        drawn = self.ended(drawn)
        pixels = (drawn - self.target).square().mean()
        if self.features is None or self.objective.perceptual is None:
            return Terms(pixels, pixels, None)
        distance = self.objective.perceptual.between(self.objective.perceptual.look(drawn), self.features)
        return Terms(pixels + distance, pixels, distance)


def _seen(x: Tensor) -> Tensor:
    """Bring pictures into the range of sizes that features are looked at."""
    shorter = min(x.shape[-2:])
    side = min(max(shorter, SMALLEST), LARGEST)
    if side == shorter:
        return x
    size = [max(1, round(length * side / shorter)) for length in x.shape[-2:]]
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=side < shorter)
