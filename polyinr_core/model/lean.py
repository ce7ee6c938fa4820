"""Drawing on a processor: a block of pixels through all levels, in passes over what is still in its cache."""

import threading
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import SLOPE
from .synthesis import Synthesis

BLOCK = 2**20  # numbers that go through a product at once: some MiB, which the last cache holds
STRIPE = 2**17  # numbers that a thread takes from one product to the next while they are in its own cache


class Lean:
    """Draw what a network draws, without gradients, in memory that is kept from level to level.

    Only a bias is added after its product, not within. Of a network in a narrow format (precision.in_precision)
    the products are narrow, and all between them is in the format of the affine maps. Several threads may draw
    at once.
    """

    def __init__(self, synthesis: Synthesis) -> None:
        products = [cast(nn.Linear, product) for product in synthesis.products]
        wide = synthesis.to_rgb.weight.dtype
        self.synthesis = synthesis
        self.weights = [product.weight.detach().T for product in products]  # [n, n]
        self.biases = [product.bias.detach().to(wide) for product in products]  # [n]
        self.room = _Room(synthesis.config.channels, wide=wide, narrow=self.weights[-1].dtype)

    @torch.no_grad()
    def __call__(self, affine: Tensor, points: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and points [P, 3] or [N, P, 3] to colours [N, P, 3]; likewise a blend's."""
        points = points.expand(len(affine), *points.shape[-2:])
        colours = affine.new_empty(len(points), 3, points.shape[1])
        size = len(self.room.x)
        firsts = self.synthesis.fold_first(affine[:, 0])
        for first, others, own, drawn in zip(firsts, affine[:, 1:], points, colours, strict=True):
            for block, out in zip(own.split(size), drawn.split(size, dim=1), strict=True):
                self._draw(first, list(others), block, out)
        return colours.mT

    def _draw(self, first: Tensor, others: list[Tensor], points: Tensor, colours: Tensor) -> None:
        """Draw a block of points [P, 3] into colours [3, P], level after level, each stripe after stripe."""
        room = self.room
        bent, to_rgb = self.synthesis.config.form == "release", self.synthesis.to_rgb
        x, product = room.x[: len(points)], room.product[: len(points)]
        for level, following in enumerate([*others, None]):
            if level:
                torch.mm(x, self.weights[level], out=product)
                x, product = product, x
            for start in range(0, len(points), len(room.m)):
                rows = slice(start, start + len(room.m))
                p, own = points[rows], x[rows]
                h = own if room.h is None else room.h[: len(p)]
                m = room.m[: len(p)]
                if level:
                    h.copy_(own).add_(self.biases[level])  # a copy to itself is none
                else:
                    torch.mm(p, first, out=h)
                self.synthesis.activate(h)
                if following is None:
                    torch.addmm(to_rgb.bias[:, None], to_rgb.weight, h.mT, out=colours[:, rows])
                    continue
                torch.mm(p, following, out=m)
                if bent:
                    functional.leaky_relu_(m, SLOPE)
                own.copy_(h.mul_(m))


class _Room(threading.local):
    """Where a block is drawn, in each thread its own: what goes into a product and comes of it, and a stripe's
    modulation. A stripe's features are where they came out, or in `h` if they are widened.
    """

    def __init__(self, n: int, *, wide: torch.dtype, narrow: torch.dtype) -> None:
        block = max(1, BLOCK // n)
        stripe = min(block, max(1, STRIPE // n) * torch.get_num_threads())
        self.x, self.product = (torch.empty(block, n, dtype=narrow) for _ in range(2))
        self.m = torch.empty(stripe, n, dtype=wide)
        self.h = None if narrow == wide else torch.empty_like(self.m)
