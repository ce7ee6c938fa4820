"""The discriminator's frozen backbones, EfficientNet-lite0 and DeiT, with convolutions that are fast on a CPU."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.runtime.pretrained import fold_batch_norms, pretrained_network

Form = TypeVar("Form", bound=nn.Conv2d)


class PixelwiseConv2d(nn.Conv2d):
    """A 1 x 1 convolution: on a processor, where channels lie last, the matrix product that it is.

    A ReLU6 after it is part of it (`clips`): PyTorch makes copies where what it changes in place is a view.
    """

    clips: bool = False

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last):
            return self.activate(super().forward(x))
        rows = functional.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)  # [N, H, W, C]
        return self.activate(rows).permute(0, 3, 1, 2)

    def activate(self, x: Tensor) -> Tensor:
        return functional.relu6(x, inplace=True) if self.clips else x


class HalvingConv2d(nn.Conv2d):
    """A convolution of stride 2 and an odd kernel, padded as in TensorFlow: on even sides more after than before.

    Its kernel has grown by a row and a column of zeros, so that it may be padded by as much before as after:
    no padded copy is made, and backward and forward pass are two or three times as fast. Odd sides are padded
    evenly, and do without the zeros.
    """

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight[:, :, x.shape[2] % 2 :, x.shape[3] % 2 :]
        return functional.conv2d(x, kernel, self.bias, 2, self.padding, 1, self.groups)


def replace_convolutions(network: nn.Module) -> None:
    """Replace a frozen network's convolutions by equal ones that are faster on a CPU."""
    from timm.layers import Conv2dSame

    for block in list(network.modules()):
        children = list(block.named_children())
        for (name, layer), (next_name, following) in pairwise([*children, ("", nn.Identity())]):
            if not isinstance(layer, nn.Conv2d) or layer.dilation != (1, 1):
                continue
            if layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.groups == 1:
                new = formed(PixelwiseConv2d, layer, layer.weight)
                setattr(block, name, new)
                if isinstance(following, nn.ReLU6):
                    new.clips = True
                    setattr(block, next_name, nn.Identity())
            elif type(layer) is Conv2dSame and layer.stride == (2, 2) and layer.kernel_size in ((3, 3), (5, 5)):
                setattr(block, name, formed(HalvingConv2d, layer, functional.pad(layer.weight, (1, 0, 1, 0))))


def formed(form: type[Form], layer: nn.Conv2d, kernel: Tensor) -> Form:
    """Return the frozen `layer` in another form, with a kernel of its own."""
    sizes: dict[str, Any] = {"stride": layer.stride, "padding": layer.kernel_size[0] // 2}
    sizes |= {"groups": layer.groups, "bias": layer.bias is not None}
    new = form(layer.in_channels, layer.out_channels, kernel.shape[-1], device="meta", **sizes)
    new.weight, new.bias = nn.Parameter(kernel.detach()), layer.bias
    return new


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DEIT_MODELS = {"deit-base": "deit_base_distilled_patch16_224", "deit-tiny": "deit_tiny_distilled_patch16_224"}
DEIT_TAPPED_BLOCKS = (2, 5, 8, 11)


class Frozen(nn.Module):
    """A network that neither learns nor leaves eval mode."""

    def freeze(self) -> None:
        """Stop gradients to the parameters; those to the input still flow."""
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: BatchNorm statistics are never touched."""
        return super().train(False)


def store_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Store convolutions and products of a frozen network in `dtype` and channels_last, for autocast to it.

    Autocast casts weights that do not learn again in every pass; it finds these cast already. What it computes in
    float32 keeps its weights.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.to(dtype=dtype).to(memory_format=torch.channels_last)  # the latter of kernels alone


class Lite0Features(Frozen):
    """EfficientNet-lite0: images in [-1, 1] to taps of 24, 40, 112, 320 channels at strides 4, 8, 16, 32.

    `weights` are timm's for tf_efficientnet_lite0. The network was trained on inputs (x - 0.5) / 0.5 of [0, 1],
    which is the image in [-1, 1] itself. It is built in the dtype of `weights`; BatchNorm eps 1e-3, padding as
    in TensorFlow, ReLU6.
    """

    widths: tuple[int, ...] = (24, 40, 112, 320)

    def __init__(self, weights: Mapping[str, Tensor], *, taps: int = 4) -> None:
        super().__init__()
        network = pretrained_network("tf_efficientnet_lite0", weights)
        fold_batch_norms(network.eval())
        replace_convolutions(network)
        groups = network.blocks
        stages = (
            nn.Sequential(network.conv_stem, network.bn1, groups[0], groups[1]),
            nn.Sequential(groups[2]),
            nn.Sequential(groups[3], groups[4]),
            nn.Sequential(groups[5], groups[6]),
        )
        self.network = nn.ModuleList(stages[:taps])
        self.freeze()

    def forward(self, x: Tensor) -> list[Tensor]:
        taps = []
        for stage in self.network:
            x = stage(x)
            taps.append(x)
        return taps


class DeitFeatures(Frozen):
    """Distilled DeiT: images in [-1, 1] to taps of strides 4, 8, 16, 32, from blocks 2, 5, 8 and 11.

    `weights` are timm's for the model of `name`; the classifiers are not needed. `readers` turn tokens into
    maps of d/8, d/4, d/2, d channels (d: the width of the transformer); they are random and frozen.
    """

    network: Any  # timm's VisionTransformerDistilled
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: Mapping[str, Tensor], *, taps: int = 4) -> None:
        super().__init__()
        headless = {key: value for key, value in weights.items() if not key.startswith("head")}
        network = pretrained_network(DEIT_MODELS[name], headless, num_classes=0)
        network.blocks = network.blocks[: DEIT_TAPPED_BLOCKS[taps - 1] + 1]
        network.norm = nn.Identity()  # tokens are read before the last norm
        self.network = network
        d = network.embed_dim
        self.widths: tuple[int, ...] = (d // 8, d // 4, d // 2, d)
        readers = (
            nn.Sequential(nn.Conv2d(d, d // 8, 1), nn.ConvTranspose2d(d // 8, d // 8, 4, stride=4)),
            nn.Sequential(nn.Conv2d(d, d // 4, 1), nn.ConvTranspose2d(d // 4, d // 4, 2, stride=2)),
            nn.Sequential(nn.Conv2d(d, d // 2, 1)),
            nn.Sequential(nn.Conv2d(d, d, 1), nn.Conv2d(d, d, 3, stride=2, padding=1)),
        )
        self.readers = nn.ModuleList(readers[:taps])
        mean = torch.tensor(IMAGENET_MEAN, dtype=network.pos_embed.dtype)[:, None, None]
        self.register_buffer("mean", mean, persistent=False)
        std = torch.tensor(IMAGENET_STD, dtype=network.pos_embed.dtype)[:, None, None]
        self.register_buffer("std", std, persistent=False)
        self.freeze()

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.network.patch_embed.proj(((x + 1) / 2 - self.mean) / self.std)  # [N, d, H/16, W/16]
        rows, columns = x.shape[-2:]
        special = torch.cat([self.network.cls_token, self.network.dist_token], dim=1).expand(len(x), -1, -1)
        x = torch.cat([special, x.flatten(2).mT], dim=1) + self.positions(rows, columns)  # [N, 2 + P, d]
        taps: list[Tensor] = []
        for number, block in enumerate(self.network.blocks):
            x = block(x)
            if number in DEIT_TAPPED_BLOCKS:
                reader = self.readers[len(taps)]
                taps.append(reader(x[:, 2:].mT.unflatten(2, (rows, columns))))
        return taps

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embedding [1, 2 + rows columns, d], bilinearly resized unless it is 14 x 14."""
        embedding: Tensor = self.network.pos_embed
        side = round((embedding.shape[1] - 2) ** 0.5)
        if (rows, columns) == (side, side):
            return embedding
        grid = embedding[:, 2:].mT.unflatten(2, (side, side))
        grid = functional.interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=False)
        return torch.cat([embedding[:, :2], grid.flatten(2).mT], dim=1)


def make_backbone(name: str, weights: Mapping[str, Tensor], *, taps: int) -> Lite0Features | DeitFeatures:
    """Build the feature network of a backbone's name with pretrained weights under timm's names."""
    return Lite0Features(weights, taps=taps) if name == "lite0" else DeitFeatures(name, weights, taps=taps)
