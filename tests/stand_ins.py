"""Small networks in the place of the large ones that judge."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from polyinr_core.metrics.inception import InceptionFeatures


class StandIn(nn.Module):
    """Called as the 2015 Inception in TorchScript is: uint8 [N, 3, H, W] to random features of 8 x 8 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.register_buffer("matrix", torch.randn(192, width, generator=rng) / 14)

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        x = torch.nn.functional.interpolate(img.float(), size=(8, 8), mode="bilinear")
        features = (x.flatten(1) / 128 - 1) @ self.matrix
        return features.relu() if return_features else features


class NarrowInception(InceptionFeatures):
    """Inception's place in a judge, with 24 features."""

    dim = 24

    def __init__(self) -> None:
        super().__init__(StandIn(self.dim), "ab" * 32)


class NarrowLite2(nn.Module):
    """EfficientNet-lite2's place in a judge, with 16 features; its weights are not looked at."""

    dim, resolution = 16, 128

    def __init__(self, weights: object) -> None:
        super().__init__()
        self.network = StandIn(self.dim)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels, return_features=True)


class Plain(nn.Module):
    """Knows no `return_features`."""

    def forward(self, img: Tensor) -> Tensor:
        return img.float().flatten(1)


def write_inception(path: Path, *, width: int | None = 2048) -> Path:
    """Write a stand-in for Inception; with `width` None, one of another call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(Plain() if width is None else StandIn(width)).save(str(path))
    return path
