"""The heads of the discriminator, with spectral normalization, and BatchNorm over several processes."""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from polyinr_core.models.layers import SLOPE, EqualizedLinear
from polyinr_core.runtime.distributed import SINGLE_PROCESS, AllReduce, DistributedContext


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the images of all `dist` together; alone it is PyTorch's own.

    PyTorch's SyncBatchNorm does the same on GPUs only.
    """

    dist: DistributedContext = SINGLE_PROCESS
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if self.dist.world_size == 1 or not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        count = self.dist.world_size * x.numel() // x.shape[1]  # the pieces are of one size
        mean = AllReduce.apply(wide.sum(dim=(0, 2, 3)), self.dist) / count  # [C]
        centered = wide - mean[:, None, None]
        variance = AllReduce.apply(centered.square().sum(dim=(0, 2, 3)), self.dist) / count
        self.update_running_statistics(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def normalize_by(self, x: Tensor, reference: Tensor) -> Tensor:
        """Normalize x by the batch statistics of `reference`. Differentiable in both; no running statistics move."""
        wide = reference if reference.dtype == torch.float64 else reference.float()
        count = self.dist.world_size * wide.numel() // wide.shape[1]
        mean = AllReduce.apply(wide.sum(dim=(0, 2, 3)), self.dist) / count  # [C]
        deviations = wide - mean[:, None, None]
        variance = AllReduce.apply(deviations.square().sum(dim=(0, 2, 3)), self.dist) / count
        scale = (variance + self.eps).rsqrt() * self.weight
        return ((x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as PyTorch does, and count the batch."""
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight W is divided by an estimate of its largest singular value.

    Each forward pass in train mode advances the estimate by one power iteration, v before u; in eval mode it
    rests. Miyato et al., "Spectral Normalization for GANs", as torch's older hook computes it (the newer
    parametrization iterates in another order and also at the start).
    """

    u: Tensor  # [out], left singular vector
    v: Tensor  # [in * kernel], right singular vector

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, 4, stride=stride, padding=padding, bias=bias)
        self.register_buffer("u", functional.normalize(torch.randn(out_channels), dim=0))
        self.register_buffer("v", functional.normalize(torch.randn(self.weight[0].numel()), dim=0))

    def forward(self, x: Tensor, parts: int = 1, copies: int = 1) -> Tensor:
        """Convolve images x [N, C, H, W]: `parts` of them, of equal size, as if each had a pass of its own.

        All are convolved with W itself at once, and each part's result is divided by its own estimate. x may hold
        several `copies` of all parts, one after another, which share the estimates of the first.
        """
        with torch.autocast(x.device.type, enabled=False):
            u, v, sigma = self.estimates(self.weight.detach().flatten(1), parts)
            sigma = Sigma.apply(self.weight, u, v, sigma).repeat(copies)
        last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        weight = self.weight.contiguous(memory_format=torch.channels_last) if last else self.weight
        y = self._conv_forward(x, weight, None).unflatten(0, (copies * parts, -1))  # [parts, N / parts, out, H', W']
        share = sigma.reciprocal().to(y.dtype)[:, None, None, None, None]
        if self.bias is None:
            return (y * share).flatten(0, 1)
        return torch.addcmul(self.bias.to(y.dtype)[:, None, None], y, share).flatten(0, 1)

    def estimates(self, rows: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each part u [parts, out], v [parts, in * kernel] and sigma [parts] of `rows` = W."""
        if not self.training:
            u, v = self.u.clone(), self.v.clone()
            return u.expand(parts, -1), v.expand(parts, -1), torch.dot(u, rows @ v).expand(parts)
        found = [self.advance(rows) for _ in range(parts)]
        u, v, sigma = (torch.stack(each) for each in zip(*found, strict=True))
        return u, v, sigma

    def advance(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make one power iteration, store it, and return (u, v, sigma)."""
        v = functional.normalize(rows.mT @ self.u, dim=0, eps=1e-12)
        mapped = rows @ v
        u = functional.normalize(mapped, dim=0, eps=1e-12)
        self.u.copy_(u)
        self.v.copy_(v)
        return u, v, torch.dot(u, mapped)


class Sigma(torch.autograd.Function):
    """sigma = u^T W v for each of several pairs u [K, out], v [K, in * kernel], which are held still.

    The values [K] are given, as who has u and v has them; the gradient is the sum of K products u v^T.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        ctx.save_for_backward(u, v)
        ctx.shape = weight.shape
        return sigma.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, v = ctx.saved_tensors
        return ((u * grad[:, None]).mT @ v).view(ctx.shape), None, None, None


class DownBlock(nn.Module):
    """Halve the side: convolution, BatchNorm, LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = SpectralConv2d(in_channels, out_channels, stride=2, padding=1)
        self.norm = SharedBatchNorm(out_channels)

    def forward(self, x: Tensor, parts: int = 1, copies: int = 1) -> Tensor:
        chunks = self.conv(x, parts, copies).chunk(copies * parts)
        normed = [self.norm(part) for part in chunks[:parts]]
        normed += [self.norm.normalize_by(x, chunks[i % parts]) for i, x in enumerate(chunks[parts:])]
        activated = [functional.leaky_relu_(part, SLOPE) for part in normed]
        return activated[0] if len(activated) == 1 else torch.cat(activated)


class Head(nn.Module):
    """Map features [N, C, S, S] to patch logits [N, K].

    Blocks bring the nominal side down to 8; then one convolution gives the logits. With `classes` it gives
    `label_dim` channels instead, which are compared with the projected row of the head's own class table
    (Miyato and Koyama, "cGANs with Projection Discriminator", scaled by 1 / sqrt(label_dim)).
    Of several `parts` of the images, each is seen as in a pass of its own, one after the other. Of several `copies`
    of all parts, the later ones are normalized by the statistics of the first.
    """

    def __init__(
        self,
        in_channels: int,
        nominal_size: int,
        *,
        divisor: int = 1,
        table_rows: int = 0,
        table_dim: int = 320,
        label_dim: int = 64,
    ) -> None:
        super().__init__()
        sides = [nominal_size >> i for i in range(1, nominal_size.bit_length() - 3)]  # after each block, down to 8
        widths = [in_channels, *(block_width(side, divisor) for side in sides)]
        self.blocks = nn.Sequential(*(DownBlock(a, b) for a, b in pairwise(widths)))
        self.out = SpectralConv2d(widths[-1], label_dim if table_rows else 1, bias=False)
        self.table = nn.Embedding(table_rows, table_dim) if table_rows else None
        self.label_proj = EqualizedLinear(table_dim, label_dim) if table_rows else None

    def forward(self, x: Tensor, label: Tensor | None, parts: int = 1, copies: int = 1) -> Tensor:
        for block in self.blocks:
            x = block(x, parts, copies)
        x = self.out(x, parts, copies)
        if self.table is not None and self.label_proj is not None:
            direction = self.label_proj(self.table(label))[:, :, None, None]  # [N, label_dim, 1, 1]
            x = (x * direction).sum(dim=1) / math.sqrt(x.shape[1])
        return x.flatten(1)


def block_width(side: int, divisor: int) -> int:
    """The release's table of widths by nominal side: 512 at 8, halved for each doubling, 64 at 64 and 128."""
    width = {128: 64, 256: 32}.get(side, 4096 // side)
    return max(1, width // divisor)
