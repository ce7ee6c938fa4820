"""The classifier that guides a generator: a frozen network that says which class a picture shows."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError, WeightsError
from ..weights.networks import fold_batch_norms, pretrained_network
from .backbones import IMAGENET_MEAN, IMAGENET_STD, Frozen
from .convolutions import quicken

MODELS = {"lite2": "tf_efficientnet_lite2", "deit-small": "deit_small_distilled_patch16_224"}
OWN_HEADS = {"lite2": ("classifier",), "deit-small": ("head", "head_dist")}
OWN_CLASSES = 1000  # ImageNet's, in its order
DEIT_SIDE = 224


class Classifier(Frozen):
    """Pictures [N, 3, r, r] in [-1, 1] and labels [N] to their mean cross-entropy, which teaches pictures only.

    `weights` are timm's for the network of `name`, in whose dtype it computes. Pictures are looked at
    bilinearly resized to `side`: any for lite2 (it was trained at 260 px), 224 for deit-small. Without a
    `head`, the logits are the network's own 1000 of ImageNet, for deit-small the mean of its two heads; with
    one, `head` of the pooled features. Raises ConfigError, and WeightsError for weights without heads.
    """

    network: Any  # timm's

    def __init__(
        self, name: str, weights: Mapping[str, Tensor], *, side: int, head: nn.Module | None = None
    ) -> None:
        super().__init__()
        if name not in MODELS:
            raise ConfigError(f"classifier {name!r} is unknown; choose from {', '.join(MODELS)}")
        self.name = name
        self.side = DEIT_SIDE if name == "deit-small" else side
        heads = OWN_HEADS[name]
        if head is None and (missing := [part for part in heads if f"{part}.weight" not in weights]):
            raise WeightsError(
                f"the {name} weights have no {missing[0]}, which classifies; give a file of the whole "
                f"{MODELS[name]}"
            )
        kept = {key: value for key, value in weights.items() if head is None or not key.startswith(heads)}
        self.network = pretrained_network(MODELS[name], kept, num_classes=OWN_CLASSES if head is None else 0)
        if name == "lite2":
            fold_batch_norms(self.network.eval())
            quicken(self.network)
            self.network.to(memory_format=torch.channels_last)
        self.head = nn.Identity() if head is None else head
        self.freeze()

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the mean over pictures of -log p(label), []."""
        return functional.cross_entropy(self.logits(x), label)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of pictures."""
        features: Tensor = self.network(self.seen(x))  # [N, d], or logits already
        return self.head(features)

    def seen(self, x: Tensor) -> Tensor:
        """Bring pictures to the size, the dtype and the range that the network was trained on."""
        x = x.to(next(self.network.parameters()).dtype)
        if x.shape[-1] != self.side:
            larger = x.shape[-1] > self.side
            x = functional.interpolate(
                x, size=(self.side,) * 2, mode="bilinear", align_corners=False, antialias=larger
            )
        if self.name == "deit-small":
            mean = x.new_tensor(IMAGENET_MEAN)[:, None, None]
            std = x.new_tensor(IMAGENET_STD)[:, None, None]
            return ((x + 1) / 2 - mean) / std
        return x.contiguous(memory_format=torch.channels_last)
