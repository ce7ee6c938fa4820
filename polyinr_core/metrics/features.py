"""The network that judges: EfficientNet-lite2, never the critic's own backbone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..weights.networks import fold_batch_norms, pretrained_network

SIDE = 128


class Lite2Features(nn.Module):
    """Pictures uint8 [N, 3, H, W] to pooled features [N, 1280], looked at bilinearly resized to `side`.

    `weights` are timm's for tf_efficientnet_lite2, trained at 260 px on inputs in [-1, 1]. A smaller side is
    faster and gives other distances: it is part of the protocol. `sha256`, where known, is that of the file.
    """

    dim = 1280
    name = "lite2"

    def __init__(self, weights: Mapping[str, Tensor], *, side: int = SIDE, sha256: str = "") -> None:
        super().__init__()
        self.sha256 = sha256
        network = pretrained_network("tf_efficientnet_lite2", weights)
        network.reset_classifier(0)
        fold_batch_norms(network.eval())
        self.network = network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.side = side

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.float() / 127.5 - 1
        x = functional.interpolate(x, size=(self.side,) * 2, mode="bilinear", align_corners=False, antialias=True)
        features: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return features


class Lite2Taps(nn.Module):
    """Pictures [N, 3, H, W], about [-1, 1], to maps at strides 4, 8, 16, 32 of EfficientNet-lite2.

    24, 48, 120, 352 channels, of pictures looked at bilinearly resized to `side`. `weights` as Lite2Features'.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, side: int = SIDE) -> None:
        super().__init__()
        self.network = pretrained_network("tf_efficientnet_lite2", weights)
        self.side = side
        fold_batch_norms(self.network.eval())
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.interpolate(x, size=(self.side,) * 2, mode="bilinear", align_corners=False, antialias=True)
        taps: list[Tensor] = self.network.forward_intermediates(x, indices=4, intermediates_only=True)
        return taps
