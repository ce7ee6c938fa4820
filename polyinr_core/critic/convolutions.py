"""Convolutions of frozen networks in forms that a processor takes quickly; what they compute is the same."""

from itertools import pairwise
from typing import Any, TypeVar

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional

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


def quicken(network: nn.Module) -> None:
    """Put quick forms in the place of a frozen network's convolutions."""
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
