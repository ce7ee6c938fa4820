"""A network of the 2015 Inception's graph, call and names, narrow and with random weights, as TorchScript."""

import warnings
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 1008


class Unit(nn.Module):
    """Convolution, normalization without a slope, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, same: bool = False):
        super().__init__()
        self.stride = stride
        self.padding = [resolution // 2 for resolution in kernel] if same else [0, 0]
        fan = inputs * kernel[0] * kernel[1]
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *kernel) * (2 / fan) ** 0.5)
        self.beta = nn.Parameter(torch.randn(outputs) / 10)
        self.register_buffer("mean", torch.randn(outputs) / 10)
        self.register_buffer("var", torch.rand(outputs) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(x, self.weight, stride=self.stride, padding=self.padding)
        x = functional.batch_norm(x, self.mean, self.var, bias=self.beta, eps=1e-3)
        return functional.relu(x)


def tower(*units: tuple[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(units))


class Wide(nn.Module):
    """A block that keeps the size: a branch 1 x 1 called `conv`, towers, an average."""

    def __init__(self, inputs: int, direct: int, other: int):
        super().__init__()
        self.conv = Unit(inputs, direct, (1, 1))
        self.tower = tower(
            ("conv", Unit(inputs, other, (1, 1))),
            ("conv_1", Unit(other, other, (1, 7), same=True)),
            ("conv_2", Unit(other, other, (7, 1), same=True)),
        )
        self.tower_2 = tower(
            ("pool", nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)),
            ("conv", Unit(inputs, other, (1, 1))),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.tower(x), self.tower_2(x)], dim=1)


class Shrinking(nn.Module):
    """A block that halves the size."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.tower = tower(("conv", Unit(inputs, outputs, (3, 3), stride=2)))
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.tower(x), self.pool(x)], dim=1)


class InceptionStandIn(nn.Module):
    """uint8 [N, 3, H, W] to features [N, 2048] or probabilities; 17 x 17 places in mixed_6, 8 x 8 at the end.

    `corner` false resizes by another rule than TensorFlow's, to be found out.
    """

    def __init__(self, *, corner: bool = True, pooled: int = 2048):
        super().__init__()
        self.corner = corner
        self.layers = nn.Sequential(
            OrderedDict(
                [
                    ("conv", Unit(3, 4, (3, 3), stride=2)),
                    ("conv_1", Unit(4, 4, (3, 3))),
                    ("conv_2", Unit(4, 6, (3, 3), same=True)),
                    ("pool0", nn.MaxPool2d(3, stride=2)),
                    ("conv_3", Unit(6, 6, (1, 1))),
                    ("conv_4", Unit(6, 8, (3, 3))),
                    ("pool1", nn.MaxPool2d(3, stride=2)),
                    ("mixed", Wide(8, 4, 2)),
                    ("mixed_1", Wide(8, 4, 2)),
                    ("mixed_2", Wide(8, 4, 2)),
                    ("mixed_3", Shrinking(8, 8)),
                    ("mixed_4", Wide(16, 8, 4)),
                    ("mixed_5", Wide(16, 8, 4)),
                    ("mixed_6", Wide(16, 8, 4)),
                    ("mixed_7", Wide(16, 8, 4)),
                    ("mixed_8", Shrinking(16, 8)),
                    ("mixed_9", Wide(24, 16, 8)),
                    ("mixed_10", Wide(32, pooled - 16, 8)),
                    ("pool2", nn.AvgPool2d(8)),
                ]
            )
        )
        self.output = nn.Linear(pooled, CLASSES)
        nn.init.normal_(self.output.weight, std=0.05)
        nn.init.normal_(self.output.bias)

    def forward(
        self,
        img: Tensor,
        return_features: bool = False,
        use_fp16: bool = False,
        no_output_bias: bool = False,
    ) -> Tensor:
        height, width = img.shape[2], img.shape[3]
        x = img.to(torch.float32)
        if self.corner:  # by index, as TensorFlow 1 did: the oracle of `corner_resize`
            across = torch.arange(299, device=x.device) * width / 299
            down = torch.arange(299, device=x.device) * height / 299
            left, top = across.floor().long(), down.floor().long()
            right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
            x = x[:, :, :, left] + (x[:, :, :, right] - x[:, :, :, left]) * (across - left)
            x = x[:, :, top] + (x[:, :, bottom] - x[:, :, top]) * (down - top)[:, None]
        else:
            x = functional.interpolate(x, size=[299, 299], mode="bilinear", align_corners=False)
        features = self.layers((x - 128) / 128).flatten(1)
        if return_features:
            return features
        if no_output_bias:
            return functional.linear(features, self.output.weight).softmax(dim=1)
        return self.output(features).softmax(dim=1)


def write_inception_graph(path: Path, *, corner: bool = True, without: str = "") -> Path:
    """Write the stand-in; its weights are always the same. `without` leaves a block out."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        network = InceptionStandIn(corner=corner).eval()
        if without:
            delattr(network.layers, without)
        torch.jit.script(network).save(str(path))
    return path
