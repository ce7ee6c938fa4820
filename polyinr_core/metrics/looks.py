"""How different pictures look to a network, by name: LPIPS with VGG16, or EfficientNet-lite2 without heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import RequestError, WeightsError
from ..files import sha256_of
from ..weights import load_pretrained
from ..weights.lpips import VGG16_FILE, cached_vgg16, load_lpips
from ..weights.pretrained import SOURCES, Packaged, packaged_file
from .features import SIDE, Lite2Taps
from .perceptual import unit_channels, unit_distance

LPIPS_LEAST = 16  # pixels: what VGG16's four halvings leave something of


@dataclass(frozen=True)
class Look:
    """A distance of pictures: `features` give maps at several depths, `heads` weigh their channels as LPIPS's do.

    `sha256` is that of the network's weights, `resize` says in words at what size it looks, `least` is the
    smallest side that it can look at.
    """

    name: str
    features: Callable[[Tensor], Sequence[Tensor]]
    heads: tuple[Tensor, ...] | None = None
    sha256: str = ""
    resize: str = "none"
    least: int = 1

    @torch.no_grad()
    def __call__(self, one: Tensor, two: Tensor) -> Tensor:
        """Return the distances [N] of pictures [N, 3, H, W] in [-1, 1] from others. Raises RequestError."""
        side = min(one.shape[-2:])
        if side < self.least:
            raise RequestError(f"{self.name} looks at {self.least} pixels or more a side; these have {side}")
        here, there = (unit_channels(self.features(pictures)) for pictures in (one, two))
        return unit_distance(here, there, weights=self.heads)

    def to(self, device: torch.device) -> "Look":
        """Return the distance on a device; its network itself moves."""
        if isinstance(self.features, nn.Module):
            self.features.to(device)
        heads = None if self.heads is None else tuple(head.to(device) for head in self.heads)
        return replace(self, heads=heads)


def load_look(name: Literal["lpips", "lite2"], file: Path | None = None) -> Look:
    """Return the distance of that name, on the CPU; `file` holds its network's weights. Raises WeightsError.

    Without a file VGG16 comes from torch.hub's cache, lite2 from its pip package.
    """
    if name == "lite2":
        source = SOURCES["lite2"]
        assert isinstance(source, Packaged)
        taps = Lite2Taps(load_pretrained("lite2", file=file))
        sha256 = sha256_of(file or packaged_file("lite2", source))
        return Look(name, taps, sha256=sha256, resize=f"{SIDE}, bilinear with antialiasing")
    file = file or cached_vgg16()
    if file is None:
        raise WeightsError(
            f"LPIPS needs torchvision's VGG16 ({VGG16_FILE}), which nothing here carries: give --weights "
            f"lpips={VGG16_FILE}; ppl-lite2 needs no file"
        )
    features, heads = load_lpips(file)
    return Look(name, features, heads, sha256=sha256_of(file), least=LPIPS_LEAST)
