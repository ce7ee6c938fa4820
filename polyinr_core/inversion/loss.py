"""The loss of inversion: mean squared error of the pixels plus a perceptual distance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.discriminator.backbones import Lite0Features
from polyinr_core.errors import RequestError
from polyinr_core.metrics.image_similarity import cached_vgg16, load_lpips, unit_channels, unit_distance
from polyinr_core.runtime.pretrained import load_pretrained

MIN_FEATURE_SIDE = 64  # smaller images are enlarged before features are extracted
MAX_FEATURE_SIDE = 512  # larger ones are reduced, as the memory of features grows with the area

LossName = Literal["auto", "lpips", "lite0", "pixels"]
LOSS_DESCRIPTIONS = {
    "lpips": "LPIPS-VGG and pixels",
    "lite0": "EfficientNet-lite0 features and pixels",
    "pixels": "pixels alone",
}


class PerceptualFeatures(Protocol):
    """A frozen network: images [N, 3, H, W] in [-1, 1] to feature maps [N, c, h, w] at several depths."""

    def __call__(self, x: Tensor) -> Sequence[Tensor]: ...


@dataclass(frozen=True)
class PerceptualDistance:
    """The LPIPS form of a distance in a network's features; `weights` are its linear heads, None for ones."""

    extractor: PerceptualFeatures
    weights: tuple[Tensor, ...] | None = None

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the features of images [N, 3, H, W], normalized to unit length over the channels."""
        return unit_channels(self.extractor(_resized_for_features(x)))

    def distance(self, one: Sequence[Tensor], two: Sequence[Tensor]) -> Tensor:
        """Return the distance between two results of `features`, averaged over images: a scalar."""
        return unit_distance(one, two, weights=self.weights).mean()


@dataclass(frozen=True)
class LossTerms:
    """Scalars: `loss` is minimized, `pixels` is the mean squared error of colors in [-1, 1]."""

    loss: Tensor
    pixels: Tensor
    perceptual: Tensor | None


@dataclass(frozen=True)
class InversionLoss:
    """The mean squared error of the pixels plus, unless `name` is "pixels", a perceptual distance."""

    name: str
    perceptual: PerceptualDistance | None = None

    def to(self, device: torch.device) -> "InversionLoss":
        """Return the loss on a device. Its network is moved in place."""
        if self.perceptual is None:
            return self
        extractor, weights = self.perceptual.extractor, self.perceptual.weights
        if isinstance(extractor, nn.Module):
            extractor.to(device)
        moved = None if weights is None else tuple(weight.to(device) for weight in weights)
        return replace(self, perceptual=replace(self.perceptual, weights=moved))

    def for_target(self, target: Tensor) -> "TargetLoss":
        """Return the loss for one target [1, 3, H, W]; the features of the target are extracted once."""
        with torch.no_grad():
            return TargetLoss(target, self.perceptual, self.perceptual.features(target) if self.perceptual else None)


@dataclass(frozen=True)
class TargetLoss:
    """The loss for one target image [1, 3, H, W]."""

    target: Tensor
    perceptual: PerceptualDistance | None
    features: list[Tensor] | None

    def clamp(self, image: Tensor) -> Tensor:
        """Clamp colors at -1 and 1 where the target is clipped there: beyond, the true color is unknown."""
        image = torch.where(self.target >= 1, image.clamp(max=1), image)
        return torch.where(self.target <= -1, image.clamp(min=-1), image)

    def __call__(self, image: Tensor) -> LossTerms:
        """Compare a rendered image [1, 3, H, W] with the target."""
        image = self.clamp(image)
        pixels = (image - self.target).square().mean()
        if self.features is None or self.perceptual is None:
            return LossTerms(pixels, pixels, None)
        distance = self.perceptual.distance(self.perceptual.features(image), self.features)
        return LossTerms(pixels + distance, pixels, distance)


def load_loss(name: LossName = "auto", *, vgg16: Path | None = None) -> InversionLoss:
    """Load an inversion loss, on the CPU.

    "auto" is "lpips" if `vgg16` is given or torch.hub's cache has VGG16, else "lite0". Nothing is downloaded.
    Raises RequestError, WeightsError.
    """
    if vgg16 is not None and name not in ("auto", "lpips"):
        raise RequestError(f"--vgg16 is for LPIPS; the loss {name} does not use it")
    if name == "auto":
        name = "lite0" if vgg16 is None and cached_vgg16() is None else "lpips"
    if name == "lpips":
        extractor, heads = load_lpips(vgg16)
        return InversionLoss(name, PerceptualDistance(extractor, heads))
    if name == "lite0":
        return InversionLoss(name, PerceptualDistance(Lite0Features(load_pretrained("lite0"))))
    return InversionLoss(name)


def _resized_for_features(x: Tensor) -> Tensor:
    """Resize images so that their shorter side is between MIN_FEATURE_SIDE and MAX_FEATURE_SIDE."""
    shorter = min(x.shape[-2:])
    side = min(max(shorter, MIN_FEATURE_SIDE), MAX_FEATURE_SIDE)
    if side == shorter:
        return x
    size = [max(1, round(length * side / shorter)) for length in x.shape[-2:]]
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=side < shorter)
