"""Eq. 3: from affine maps and points to colours, with products and LeakyReLU only."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import GeneratorConfig
from .layers import SLOPE, aligned
from .level import Level


class Synthesis(nn.Module):
    """Draw points of the plane from a picture's affine maps. Paper, Eq. 3.

    x_0 = lrelu(U_0 (A_0 p) + u_0) and x_i = lrelu(U_i (x_{i-1} * m_i) + u_i) for a point p = (x, y, 1), where
    m_i is A_i p in the paper's form and lrelu(A_i p) in the release's, which also clamps every x_i.
    Level 0 is linear before its activation, so U_0 A_0 is folded into one 3 x n matrix.

    `product_dtype` is a format for the n x n products alone (None: the weights' own), for training in bfloat16
    with float32 weights. Points and affine maps stay as they are: 8 bits cannot tell the pixels of a row apart.
    """

    product_dtype: torch.dtype | None = None

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        n = config.channels
        self.products = nn.ModuleList(nn.Linear(n, n) for _ in range(config.levels))
        self.to_rgb = nn.Linear(n, 3)

    def forward(self, affine: Tensor, points: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and points [P, 3] or [N, P, 3] to colours [N, P, 3], about [-1, 1].

        A blend of K pictures is drawn from their maps one below the other, [N, L, 3 K, n], and points [P, 3 K]
        that hold (x, y, 1) times the K shares of each pixel (grid.Blend).
        """
        for h in self.features(affine, points):  # noqa: B007 - the last level's
            pass
        return self.to_rgb(h.to(affine.dtype))  # narrow products leave narrow features

    def features(self, affine: Tensor, points: Tensor) -> Iterator[Tensor]:
        """Yield the features [N, P, n] of level after level."""
        first, *others = affine.unbind(dim=1)  # each [N, 3, n]
        h = self.activate(torch.matmul(points, self.fold_first(first)))  # [N, P, n]
        yield h
        for product, matrix in zip(list(self.products)[1:], others, strict=True):
            h = self.level(product, h, matrix, points)
            yield h

    def level(self, product: nn.Module, h: Tensor, matrix: Tensor, points: Tensor) -> Tensor:
        """Return the features after a level above 0, [N, P, n]."""
        mixed = torch.is_autocast_enabled(h.device.type)
        if torch.is_grad_enabled() and isinstance(product, nn.Linear) and not mixed:
            manner = self.config.form == "release", self.config.clamp, self.product_dtype
            return Level.apply(h, matrix, points, product.weight, product.bias, *manner)
        return self.activate(self.multiply(product, h * self.modulation(matrix, points)))

    def multiply(self, product: nn.Module, h: Tensor) -> Tensor:
        """Return the product of a level, in its format."""
        kind = self.product_dtype
        if kind is None:
            return product(h)
        weight, bias = cast(nn.Linear, product).weight, cast(nn.Linear, product).bias
        return functional.linear(h.to(kind), weight.to(kind), bias.to(kind))

    def fold_first(self, matrix: Tensor) -> Tensor:
        """Fold level 0's affine map [N, 3, n], product and bias into one map [N, 3, n]; likewise a blend's."""
        product = cast(nn.Linear, self.products[0])
        folded = (matrix @ aligned(product.weight).T).unflatten(1, (-1, 3))  # [N, K, 3, n]
        constant = folded[:, :, 2:] + product.bias
        return torch.cat([folded[:, :, :2], constant], dim=2).flatten(1, 2)

    def modulation(self, matrix: Tensor, points: Tensor) -> Tensor:
        """Return what the features of a level are multiplied with, [N, P, n]."""
        m = torch.matmul(points, matrix)
        return functional.leaky_relu_(m, SLOPE) if self.config.form == "release" else m  # absent from Eq. 3

    def activate(self, h: Tensor) -> Tensor:
        """LeakyReLU and, in the release's form, the clamp; `h` is a product's fresh result and may be reused."""
        h = functional.leaky_relu_(h, SLOPE)
        limit = self.config.clamp
        if limit is None:
            return h
        return h.clamp(-limit, limit) if h.requires_grad else h.clamp_(-limit, limit)

    def extra_repr(self) -> str:
        return f"form={self.config.form}"


def flops_per_pixel(config: GeneratorConfig) -> int:
    """Count the multiplications and additions of a pixel: 2 n^2 a level after level 0, plus the small change."""
    n, levels = config.channels, config.levels
    return (levels - 1) * (2 * n * n + n) + levels * 6 * n + 6 * n
