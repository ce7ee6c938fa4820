"""Drawing on a processor: block after block of pixels through all levels, in memory that is kept."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import SLOPE
from .synthesis import Synthesis

BLOCK = 1024  # pixels whose features stay in the processor's cache


class Lean:
    """Draw what a network draws, without gradients, by the same operations in place: no block allocates anything.

    The network may be in a narrow format (precision.in_precision). Its weights are looked at, not copied.
    """

    def __init__(self, synthesis: Synthesis, *, block: int = BLOCK) -> None:
        self.synthesis, self.block = synthesis, block
        products = [cast(nn.Linear, product) for product in synthesis.products][1:]
        self.products = [(product.weight.detach().T, product.bias.detach()) for product in products]
        self.bent, self.limit = synthesis.config.form == "release", synthesis.config.clamp

    @torch.no_grad()
    def __call__(self, affine: Tensor, points: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and points [P, 3] or [N, P, 3] to colours [N, P, 3]; likewise of a blend."""
        points = points.expand(len(affine), *points.shape[-2:])
        colours = affine.new_empty(*points.shape[:2], 3)
        shape = min(self.block, points.shape[1]), affine.shape[-1]
        h, m = affine.new_empty(shape), affine.new_empty(shape)
        firsts = self.synthesis.fold_first(affine[:, 0])
        for first, others, own, drawn in zip(firsts, affine[:, 1:], points, colours, strict=True):
            for part, out in zip(own.split(self.block), drawn.split(self.block), strict=True):
                self.draw([first, *others], part, out, h[: len(part)], m[: len(part)])
        return colours

    def draw(self, maps: list[Tensor], points: Tensor, colours: Tensor, h: Tensor, m: Tensor) -> None:
        """Draw points [P, 3] into colours [P, 3], by way of features h and modulation m [P, n]."""
        self.activate(torch.mm(points, maps[0], out=h))
        for (weight, bias), matrix in zip(self.products, maps[1:], strict=True):
            torch.mm(points, matrix, out=m)
            if self.bent:
                functional.leaky_relu_(m, SLOPE)
            m.mul_(h)
            if weight.dtype == h.dtype:
                torch.addmm(bias, m, weight, out=h)
            else:
                h.copy_(torch.addmm(bias, m.to(weight.dtype), weight))
            self.activate(h)
        to_rgb = self.synthesis.to_rgb
        colours.copy_(to_rgb(h))

    def activate(self, h: Tensor) -> None:
        """LeakyReLU and the clamp, in place."""
        functional.leaky_relu_(h, SLOPE)
        if self.limit is not None:
            h.clamp_(-self.limit, self.limit)
