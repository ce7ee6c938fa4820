"""How far a drawn image is from a photo: a distance in a network's features, and pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.discriminator.backbones import Lite0Features
from polyinr_core.errors import RequestError
from polyinr_core.images.grid import Pixels
from polyinr_core.images.quantize import to_uint8
from polyinr_core.metrics.lpips import cached_vgg16, load_lpips, unit_channels, unit_distance
from polyinr_core.metrics.psnr_ssim import psnr, ssim
from polyinr_core.models.generator import Synthesis
from polyinr_core.runtime.pretrained import load_pretrained

from .target import Canvas, Photo

SMALLEST = 64  # the shorter side that features see: a smaller image is enlarged for them
LARGEST = 512  # and a larger one reduced: their memory grows with the area


class Features(Protocol):
    """A frozen network: images [N, 3, H, W] in [-1, 1] to maps at several depths, [N, c, h, w] each."""

    def __call__(self, x: Tensor) -> Sequence[Tensor]: ...


@dataclass(frozen=True)
class Terms:
    """What an objective finds, as scalars: `loss` is minimized, `pixels` is the mean squared error of [-1, 1]."""

    loss: Tensor
    pixels: Tensor
    perceptual: Tensor | None


@dataclass(frozen=True)
class Perceptual:
    """A distance of images in the features of a network, LPIPS's with its linear heads as `weights`."""

    features: Features
    weights: tuple[Tensor, ...] | None = None

    def look(self, x: Tensor) -> list[Tensor]:
        """Return the features of images [N, 3, H, W], each place's channels of unit length."""
        return unit_channels(self.features(_seen(x)))

    def between(self, one: Sequence[Tensor], two: Sequence[Tensor]) -> Tensor:
        """Return the distance of features that `look` gave, a mean over images; a scalar."""
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
        """End a drawn image's colors at -1 and 1 where the photo's do: beyond them it cannot tell."""
        drawn = torch.where(self.target >= 1, drawn.clamp(max=1), drawn)
        return torch.where(self.target <= -1, drawn.clamp(min=-1), drawn)

    def terms(self, drawn: Tensor) -> Terms:
        """Judge a drawn image [1, 3, H, W]."""
        drawn = self.ended(drawn)
        pixels = (drawn - self.target).square().mean()
        if self.features is None or self.objective.perceptual is None:
            return Terms(pixels, pixels, None)
        distance = self.objective.perceptual.between(self.objective.perceptual.look(drawn), self.features)
        return Terms(pixels + distance, pixels, distance)


def _seen(x: Tensor) -> Tensor:
    """Bring images into the range of sizes that features are looked at."""
    shorter = min(x.shape[-2:])
    side = min(max(shorter, SMALLEST), LARGEST)
    if side == shorter:
        return x
    size = [max(1, round(length * side / shorter)) for length in x.shape[-2:]]
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=side < shorter)


ObjectiveName = Literal["auto", "lpips", "lite0", "pixels"]

WORDS = {
    "lpips": "LPIPS-VGG and pixels",
    "lite0": "EfficientNet-lite0 features and pixels",
    "pixels": "pixels alone",
}


def choose_objective(name: ObjectiveName, *, vgg16: Path | None = None) -> Objective:
    """Return the objective of a name; auto: LPIPS-VGG where VGG16 is given or at hand, else lite0 features.

    Raises RequestError, WeightsError.
    """
    if vgg16 is not None and name not in ("auto", "lpips"):
        raise RequestError(f"--vgg16 is for LPIPS; the objective {name} does not read it")
    if name == "auto":
        name = "lite0" if vgg16 is None and cached_vgg16() is None else "lpips"
    if name == "lpips":
        features, heads = load_lpips(vgg16)
        return Objective(name, Perceptual(features, heads))
    if name == "lite0":
        return Objective(name, Perceptual(Lite0Features(load_pretrained("lite0"))))
    return Objective(name)


@dataclass(frozen=True)
class Score:
    """PSNR in dB (inf: the same image), SSIM (None below 11 pixels a side), and a perceptual distance."""

    psnr: float
    ssim: float | None
    perceptual: float | None

    def facts(self) -> dict[str, Any]:
        """Return the figures as JSON holds them: a PSNR of infinity is null."""
        return {
            "psnr": self.psnr if math.isfinite(self.psnr) else None,
            "ssim": self.ssim,
            "perceptual": self.perceptual,
        }

    def __str__(self) -> str:
        words = [f"PSNR {self.psnr:.2f} dB"]
        words += [] if self.ssim is None else [f"SSIM {self.ssim:.4f}"]
        words += [] if self.perceptual is None else [f"perceptual {self.perceptual:.4f}"]
        return ", ".join(words)


@torch.no_grad()
def score(synthesis: Synthesis, affine: Tensor, photo: Photo, canvas: Canvas, aim: Aim) -> tuple[Score, Pixels]:
    """Draw affine maps [1, L, 3, n] and return their score and the image's pixels [H, W, 3]."""
    drawn = canvas.draw(synthesis, affine)
    pixels = to_uint8(drawn[0].permute(1, 2, 0))
    distance = aim.terms(drawn.clamp(-1, 1)).perceptual
    found = Score(
        psnr(pixels, photo.pixels),
        ssim(pixels, photo.pixels),
        None if distance is None else float(distance),
    )
    return found, pixels
