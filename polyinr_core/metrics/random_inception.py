"""An Inception that has learnt nothing: seeded weights, for a Fréchet distance that no training can game."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import inception_v3

from ..seeds import generator_for, no_start_values
from .resizing import corner_resize


class RandomInception(nn.Module):
    """Pictures uint8 [N, 3, H, W] to the pooled features [N, 2048] of an Inception v3 with weights from a seed.

    Convolutions are drawn as He et al. (2015) do, so that signals keep their size through the layers;
    normalisations do nothing. Pictures are resized as the 2015 Inception does. The published rFID is of other
    random weights, in a file: its numbers and these cannot be compared, hence the name `rfid-seed0`. `sha256` is
    that of the weights, in their order.
    """

    dim = 2048

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with no_start_values():
            network: Any = inception_v3(weights=None, aux_logits=False, init_weights=False)
        network.fc = nn.Identity()
        network.to_empty(device="cpu")
        digest = hashlib.sha256()
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d):
                spread = (2 / layer.weight[0].numel()) ** 0.5
                rng = generator_for(seed, "random inception", name)
                layer.weight.data.normal_(generator=rng).mul_(spread)
                digest.update(layer.weight.detach().numpy().tobytes())
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.weight.data.fill_(1)
                layer.bias.data.fill_(0)
        self.network = network.eval().requires_grad_(False)
        self.name = f"rfid-seed{seed}"
        self.sha256 = digest.hexdigest()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network((corner_resize(pixels) - 128) / 128)
        return features
