"""Pictures enlarged before a network looks, as people do who do not draw larger: paper, table 3."""

from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..metrics.networks import FeatureNetwork

Filter = Literal["nearest", "bilinear", "bicubic"]
FILTERS: tuple[Filter, ...] = get_args(Filter)


class Enlarging:
    """A network that sees pictures, uint8 [N, 3, H, W], enlarged by Pillow to `side` pixels squared."""

    def __init__(self, network: FeatureNetwork, filter: Filter, *, side: int) -> None:
        self.network = network
        self.filter = filter
        self.side = side
        self.dim = network.dim
        self.name = f"{network.name}/{filter}"
        self.sha256 = network.sha256

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.network(enlarge(pixels, self.side, self.filter))

    def to(self, device: torch.device) -> "Enlarging":
        return Enlarging(self.network.to(device), self.filter, side=self.side)


def enlarge(pixels: Tensor, side: int, filter: Filter) -> Tensor:
    """Enlarge 8-bit pictures [N, 3, H, W] to [N, 3, side, side], on the same device, by Pillow's filter."""
    how = Image.Resampling[filter.upper()]
    pictures = pixels.permute(0, 2, 3, 1).cpu().numpy()
    larger = [np.asarray(Image.fromarray(picture).resize((side, side), how)) for picture in pictures]
    return torch.from_numpy(np.stack(larger)).permute(0, 3, 1, 2).to(pixels.device)
