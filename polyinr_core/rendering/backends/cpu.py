"""Drawing on a processor: a block of pixels through all levels, in passes over what is still in its cache."""

import threading
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.models.generator import Synthesis
from polyinr_core.models.layers import SLOPE, aligned

BLOCK = 2**20  # numbers that go through a product at once: some MiB, which the last cache holds
CHANNELS = 16  # a pixel has a multiple of them, zeros added: 64 bytes in float32
STRIPE = 2**17  # numbers that a thread takes from one product to the next while they are in its own cache


class CpuBackend:
    """Draw what a network draws, without gradients, in memory that is kept from level to level.

    Only a bias is added after its product, not within. Of a network in a narrow format (precision.in_precision)
    the products are narrow, and all between them is in the format of the affine maps. Several threads may draw
    at once.
    """

    def __init__(self, synthesis: Synthesis) -> None:
        self.synthesis = synthesis
        narrow = cast(nn.Linear, synthesis.products[-1]).weight.dtype
        self.room = _Room(synthesis.config.channels, wide=synthesis.to_rgb.weight.dtype, narrow=narrow)

    @torch.no_grad()
    def __call__(self, affine: Tensor, points: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and points [P, 3] or [N, P, 3] to colors [N, P, 3]; likewise a blend's."""
        points = points.expand(len(affine), *points.shape[-2:])
        colors = affine.new_empty(len(points), 3, points.shape[1])
        size, layers = len(self.room.x), _Layers(self.synthesis)
        for maps, own, drawn in zip(affine, points, colors, strict=True):
            first = self.synthesis.fold_first(aligned(maps[:1]))  # an image alone, whatever is drawn beside it
            matrices = [aligned(padded(matrix, matrix.shape[0])) for matrix in (*first, *maps[1:])]
            for block, out in zip(own.split(size), drawn.split(size, dim=1), strict=True):
                self._draw(layers, matrices, block, out)
        return colors.mT

    def _draw(self, layers: "_Layers", matrices: list[Tensor], points: Tensor, colors: Tensor) -> None:
        """Draw a block of points [P, 3] into colors [3, P], level after level, each stripe after stripe."""
        room, (first, *others) = self.room, matrices
        bent = self.synthesis.config.form == "release"
        x, product = room.x[: len(points)], room.product[: len(points)]
        for level, following in enumerate([*others, None]):
            if level:
                torch.mm(x, layers.weights[level], out=product)
                x, product = product, x
            for start in range(0, len(points), len(room.m)):
                rows = slice(start, start + len(room.m))
                p, own = points[rows], x[rows]
                h = own if room.h is None else room.h[: len(p)]
                m = room.m[: len(p)]
                if level:
                    h.copy_(own).add_(layers.biases[level])  # a copy to itself is none
                else:
                    torch.mm(p, first, out=h)
                self.synthesis.activate(h)
                if following is None:
                    torch.addmm(layers.constant, layers.to_rgb, h.mT, out=colors[:, rows])
                    continue
                torch.mm(p, following, out=m)
                if bent:
                    functional.leaky_relu_(m, SLOPE)
                own.copy_(h.mul_(m))


class _Layers:
    """What stands in the network's layers now, as its products take it: from where a cache line begins, so that
    their last bits do not depend on where the weights were loaded to, and padded.
    """

    def __init__(self, synthesis: Synthesis) -> None:
        to_rgb, n = synthesis.to_rgb, padded_channels(synthesis.config.channels)
        products = [cast(nn.Linear, product) for product in synthesis.products]
        self.weights = [aligned(padded(product.weight.detach(), n)).T for product in products]  # [n, n]
        self.biases = [padded(product.bias.detach().to(to_rgb.weight.dtype)[None], 1)[0] for product in products]
        self.to_rgb = aligned(padded(to_rgb.weight.detach(), 3))  # [3, n]
        self.constant = to_rgb.bias.detach()[:, None]  # [3, 1]


class _Room(threading.local):
    """Where a block is drawn, in each thread its own: what goes into a product and comes of it, and a stripe's
    modulation. A stripe's features are where they came out, or in `h` if they are widened.

    Blocks and stripes are powers of two, which divide what is drawn together (drawing.BLOCK): a pixel goes
    through products of the same shapes wherever among others it stands.
    """

    def __init__(self, channels: int, *, wide: torch.dtype, narrow: torch.dtype) -> None:
        n = padded_channels(channels)
        block = power_of_two(BLOCK // n)
        stripe = min(block, power_of_two(STRIPE // n * torch.get_num_threads()))
        self.x, self.product = (torch.empty(block, n, dtype=narrow) for _ in range(2))
        self.m = torch.empty(stripe, n, dtype=wide)
        self.h = None if narrow == wide else torch.empty_like(self.m)


def padded_channels(channels: int) -> int:
    """Return the channels that a pixel takes: its features begin at a cache line, and add up as any other's."""
    return -(-channels // CHANNELS) * CHANNELS


def padded(x: Tensor, rows: int) -> Tensor:
    """Return x [m, n] with zeros added, [rows, padded_channels(n)]: x itself where none are missing."""
    missing = rows - x.shape[0], padded_channels(x.shape[1]) - x.shape[1]
    return functional.pad(x, (0, missing[1], 0, missing[0])) if any(missing) else x


def power_of_two(number: int) -> int:
    """Return the largest power of two that is not larger, at least 1."""
    return 1 << max(0, number.bit_length() - 1)
