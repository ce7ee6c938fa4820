"""The baseline of the benchmarks: a naive PyTorch implementation of the method.

Plain PyTorch in float32: a chain of grids from level to level, every map at every pixel, no folding, BatchNorm as
it stands in the pretrained network, Adam as PyTorch gives it. Unconditional. It imports nothing of polyinr.
"""

import copy
import math
from collections.abc import Mapping

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import spectral_norm

SLOPE, LEVELS, W_DIM, Z_DIM = 0.2, 10, 512, 64


def normalize(x: Tensor) -> Tensor:
    return x / torch.sqrt(x.pow(2).mean(dim=1, keepdim=True) + 1e-8)


class EqualizedLinear(nn.Module):
    """y = sqrt(2) lrelu(x (W m / sqrt(in))^T + b m)."""

    def __init__(self, inputs: int, outputs: int, multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.multiplier = multiplier

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (self.multiplier / math.sqrt(x.shape[1]))
        return math.sqrt(2) * functional.leaky_relu(functional.linear(x, weight, self.bias * self.multiplier), SLOPE)


class Level(nn.Module):
    """Move the grid, map it to n channels, multiply, mix, activate, clip."""

    def __init__(self, n: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.style = nn.Identity() if first else EqualizedLinear(W_DIM, n)
        inputs = W_DIM if first else n
        self.matrix, self.offset = nn.Linear(inputs, 4), nn.Linear(inputs, 2)
        self.map, self.constant = nn.Linear(inputs, 2 * n), nn.Linear(inputs, n)
        self.mix = nn.Linear(n, n)

    def forward(self, x: Tensor | None, grid: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        f = self.style(w)
        grid = torch.bmm(grid, self.matrix(f).view(-1, 2, 2)) + self.offset(f).unsqueeze(1)  # [N, P, 2]
        m = torch.bmm(grid, self.map(f).view(len(w), 2, -1)) + self.constant(f).unsqueeze(1)  # [N, P, n]
        if x is not None:
            m = x * functional.leaky_relu(m, SLOPE)
        x = functional.leaky_relu(self.mix(m), SLOPE)
        return torch.clip(x, -256, 256), grid


class BaselineGenerator(nn.Module):
    """z to w, then level after level to colors. docs/method.md, "One formula", the release's form."""

    def __init__(self, side: int, n: int) -> None:
        super().__init__()
        self.fc0, self.fc1 = EqualizedLinear(Z_DIM, W_DIM, 0.1), EqualizedLinear(W_DIM, W_DIM, 0.1)
        self.levels = nn.ModuleList(Level(n, first=i == 0) for i in range(LEVELS))
        self.to_rgb = nn.Conv2d(n, 3, 1)
        self.side = side
        steps = torch.linspace(0, 1, side)
        self.register_buffer("grid", torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).view(1, -1, 2))
        self.register_buffer("w_avg", torch.zeros(W_DIM))

    def forward(self, z: Tensor, update: bool = False) -> Tensor:
        w = self.fc1(self.fc0(normalize(z)))
        if update:
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg, 0.998))
        w = w.unsqueeze(1).repeat(1, LEVELS, 1)
        x, grid = None, self.grid.repeat(len(z), 1, 1)
        for i, level in enumerate(self.levels):
            x, grid = level(x, grid, w[:, i])
        return self.to_rgb(x.permute(0, 2, 1).reshape(len(z), -1, self.side, self.side))


class LiteralDiscriminator(nn.Module):
    """EfficientNet-lite0 at 224, random projections of c = 64, four heads: Sauer et al. 2021, Projected GANs."""

    def __init__(self, weights: Mapping[str, Tensor], c: int = 64) -> None:
        super().__init__()
        self.network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        self.network.load_state_dict(weights)
        widths = [c, 2 * c, 4 * c, 8 * c]
        outputs = [c, c, 2 * c, 4 * c]
        self.ccm = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip((24, 40, 112, 320), widths, strict=True))
        self.csm = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, outputs, strict=True))
        self.requires_grad_(False)
        below = {64: 64, 32: 128, 16: 256, 8: 512}
        self.heads = nn.ModuleList()
        for inputs, start in zip(outputs, (128, 64, 32, 16), strict=True):
            layers: list[nn.Module] = []
            side = start
            while side > 8:
                side //= 2
                layers += [
                    spectral_norm(nn.Conv2d(inputs, below[side], 4, stride=2, padding=1)),
                    nn.BatchNorm2d(below[side]),
                    nn.LeakyReLU(SLOPE),
                ]
                inputs = below[side]
            layers.append(spectral_norm(nn.Conv2d(inputs, 1, 4, bias=False)))
            self.heads.append(nn.Sequential(*layers))

    def train(self, mode: bool = True) -> "LiteralDiscriminator":
        super().train(mode)
        self.network.eval()  # the frozen network is always in eval mode
        return self

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        x = blur(x, sigma)
        x = diff_augment(x)
        x = ((x + 1) / 2 - 0.5) / 0.5
        x = functional.interpolate(x, size=(224, 224), mode="bilinear", align_corners=False)
        x = self.network.bn1(self.network.conv_stem(x))
        blocks = self.network.blocks
        taps = []
        for groups in ((0, 1), (2,), (3, 4), (5, 6)):
            for group in groups:
                x = blocks[group](x)
            taps.append(x)
        maps: list[Tensor] = []
        deeper: Tensor | None = None
        for tap, ccm, csm in reversed(list(zip(taps, self.ccm, self.csm, strict=True))):
            y = ccm(tap)
            if deeper is not None:
                y = y + deeper
            y = functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
            deeper = csm(y)
            maps.insert(0, deeper)
        return torch.cat([head(y).flatten(1) for head, y in zip(self.heads, maps, strict=True)], dim=1)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Separable, weights 2^-(o/sigma)^2, zeros outside."""
    radius = math.floor(3 * sigma)
    if radius == 0:
        return x
    kernel = torch.exp2(-((torch.arange(-radius, radius + 1) / sigma) ** 2))
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1, 1)
    x = functional.conv2d(x, kernel, padding=(0, radius), groups=3)
    return functional.conv2d(x, kernel.transpose(2, 3), padding=(radius, 0), groups=3)


def diff_augment(x: Tensor) -> Tensor:
    """Color, translation, cutout."""
    count, _, side, _ = x.shape
    x = x + (torch.rand(count, 1, 1, 1) - 0.5)
    gray = x.mean(dim=1, keepdim=True)
    x = (x - gray) * (torch.rand(count, 1, 1, 1) * 2) + gray
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * (torch.rand(count, 1, 1, 1) + 0.5) + mean
    shift, hole = int(side * 0.125 + 0.5), int(side * 0.2 + 0.5)
    batch, rows, columns = torch.meshgrid(torch.arange(count), torch.arange(side), torch.arange(side), indexing="ij")
    moved_rows = (rows + torch.randint(-shift, shift + 1, (count, 1, 1)) + 1).clamp(0, side + 1)
    moved_columns = (columns + torch.randint(-shift, shift + 1, (count, 1, 1)) + 1).clamp(0, side + 1)
    padded = functional.pad(x, [1, 1, 1, 1]).permute(0, 2, 3, 1)
    x = padded[batch, moved_rows, moved_columns].permute(0, 3, 1, 2)
    center = torch.randint(0, side + 1 - hole % 2, (2, count, 1, 1))
    batch, rows, columns = torch.meshgrid(torch.arange(count), torch.arange(hole), torch.arange(hole), indexing="ij")
    mask = torch.ones(count, side, side)
    mask[
        batch,
        (rows + center[0] - hole // 2).clamp(0, side - 1),
        (columns + center[1] - hole // 2).clamp(0, side - 1),
    ] = 0
    return x * mask.unsqueeze(1)


class BaselineTrainer:
    """Generator, discriminator, average and both optimizers. docs/method.md, "Where paper and release differ"."""

    def __init__(self, weights: Mapping[str, Tensor], *, side: int, n: int) -> None:
        self.generator, self.discriminator = BaselineGenerator(side, n).train(), LiteralDiscriminator(weights).train()
        self.ema = copy.deepcopy(self.generator).eval()
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), lr=8e-5, betas=(0.0, 0.991992))
        heads = self.discriminator.heads.parameters()
        self.d_optimizer = torch.optim.Adam(heads, lr=1.88235e-4, betas=(0.0, 0.990585))

    def iterate(self, reals: Tensor, z: Tensor, z_disc: Tensor, *, sigma: float, beta: float) -> None:
        """Step the generator, step the discriminator, average."""
        self.g_optimizer.zero_grad(set_to_none=True)
        self.discriminator.heads.requires_grad_(False)
        self.generator.requires_grad_(True)
        (-self.discriminator(self.generator(z), sigma)).mean(dim=1).sum().backward()
        self.step(self.generator, self.g_optimizer)

        self.d_optimizer.zero_grad(set_to_none=True)
        self.discriminator.heads.requires_grad_(True)
        self.generator.requires_grad_(False)
        with torch.no_grad():
            fakes = self.generator(z_disc, update=True)
        functional.relu(1 + self.discriminator(fakes, sigma)).mean(dim=1).sum().backward()
        functional.relu(1 - self.discriminator(reals, sigma)).mean(dim=1).sum().backward()
        self.step(self.discriminator.heads, self.d_optimizer)

        with torch.no_grad():
            for average, parameter in zip(self.ema.parameters(), self.generator.parameters(), strict=True):
                average.copy_(parameter.lerp(average, beta))
            for average, buffer in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
                average.copy_(buffer)

    def step(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Gather all gradients in one vector, mend what is not finite, step."""
        parameters = [p for p in network.parameters() if p.grad is not None]
        flat = torch.cat([p.grad.flatten() for p in parameters])
        flat = torch.nan_to_num(flat, nan=0, posinf=1e5, neginf=-1e5)
        for parameter, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = grad.view_as(parameter)
        optimizer.step()
