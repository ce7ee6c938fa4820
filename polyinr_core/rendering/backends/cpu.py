"""The CPU backend: evaluates a chunk of pixels through all levels in preallocated buffers that fit the cache."""

import threading
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.models.generator import Synthesis
from polyinr_core.models.layers import SLOPE, aligned

CHUNK_NUMBERS = 2**20  # that go through a product at once: some MiB, which the last-level cache holds
CHANNEL_MULTIPLE = 16  # to which channels are padded with zeros: 64 bytes in float32
STRIPE_NUMBERS = 2**17  # that a thread takes from one product to the next while they are in its cache


class CpuBackend:
    """Evaluate a synthesis network without gradients, in buffers that are reused from level to level.

    In reduced precision (in_precision) the products are in the dtype of the weights, everything between
    them in that of the affine parameters. Several threads may evaluate at the same time.
    """

    def __init__(self, synthesis: Synthesis) -> None:
        self.synthesis = synthesis
        product_dtype = cast(nn.Linear, synthesis.products[-1]).weight.dtype
        dtype = synthesis.to_rgb.weight.dtype
        self.buffers = _Buffers(synthesis.config.channels, dtype=dtype, product_dtype=product_dtype)

    @torch.no_grad()
    def __call__(self, affine: Tensor, coordinates: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and coordinates [P, 3] or [N, P, 3] to colors [N, P, 3]; a blend likewise."""
        coordinates = coordinates.expand(len(affine), *coordinates.shape[-2:])
        colors = affine.new_empty(len(coordinates), 3, coordinates.shape[1])
        size, layers = len(self.buffers.x), _Layers(self.synthesis)
        for levels, xy1, image in zip(affine, coordinates, colors, strict=True):
            first = self.synthesis.fold_first(aligned(levels[:1]))  # alone, so that no bit depends on the batch
            matrices = [aligned(padded(matrix, matrix.shape[0])) for matrix in (*first, *levels[1:])]
            for chunk, out in zip(xy1.split(size), image.split(size, dim=1), strict=True):
                self._evaluate(layers, matrices, chunk, out)
        return colors.mT

    def _evaluate(self, layers: "_Layers", matrices: list[Tensor], coordinates: Tensor, colors: Tensor) -> None:
        """Evaluate a chunk of coordinates [P, 3] into colors [3, P], level after level, each stripe after stripe."""
        buffers, (first, *others) = self.buffers, matrices
        is_release = self.synthesis.config.form == "release"
        x, product = buffers.x[: len(coordinates)], buffers.product[: len(coordinates)]
        for level, following in enumerate([*others, None]):
            if level:
                torch.mm(x, layers.weights[level], out=product)
                x, product = product, x
            for start in range(0, len(coordinates), len(buffers.m)):
                rows = slice(start, start + len(buffers.m))
                p, features = coordinates[rows], x[rows]
                h = features if buffers.h is None else buffers.h[: len(p)]
                m = buffers.m[: len(p)]
                if level:
                    h.copy_(features).add_(layers.biases[level])  # a copy to itself is free
                else:
                    torch.mm(p, first, out=h)
                self.synthesis.activate(h)
                if following is None:
                    torch.addmm(layers.constant, layers.to_rgb, h.mT, out=colors[:, rows])
                    continue
                torch.mm(p, following, out=m)
                if is_release:
                    functional.leaky_relu_(m, SLOPE)
                features.copy_(h.mul_(m))


class _Layers:
    """The network's current weights, aligned to cache lines, so that no bit depends on their address, and padded."""

    def __init__(self, synthesis: Synthesis) -> None:
        to_rgb, n = synthesis.to_rgb, padded_channels(synthesis.config.channels)
        products = [cast(nn.Linear, product) for product in synthesis.products]
        self.weights = [aligned(padded(product.weight.detach(), n)).T for product in products]  # [n, n]
        self.biases = [padded(product.bias.detach().to(to_rgb.weight.dtype)[None], 1)[0] for product in products]
        self.to_rgb = aligned(padded(to_rgb.weight.detach(), 3))  # [3, n]
        self.constant = to_rgb.bias.detach()[:, None]  # [3, 1]


class _Buffers(threading.local):
    """The buffers of a thread: input and result of a product, and the modulation of a stripe.

    Features stay in the result's buffer, or in `h` if they are widened. Chunks and stripes are powers of two, which
    divide the chunks that `render.render_rows` evaluates, so a pixel goes through products of the same shapes
    wherever it is.
    """

    def __init__(self, channels: int, *, dtype: torch.dtype, product_dtype: torch.dtype) -> None:
        n = padded_channels(channels)
        chunk = power_of_two(CHUNK_NUMBERS // n)
        stripe = min(chunk, power_of_two(STRIPE_NUMBERS // n * torch.get_num_threads()))
        self.x, self.product = (torch.empty(chunk, n, dtype=product_dtype) for _ in range(2))
        self.m = torch.empty(stripe, n, dtype=dtype)
        self.h = None if product_dtype == dtype else torch.empty_like(self.m)


def padded_channels(channels: int) -> int:
    """Return the channels that a pixel occupies: its features begin at a cache line."""
    return -(-channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE


def padded(x: Tensor, rows: int) -> Tensor:
    """Pad x [m, n] with zeros to [rows, padded_channels(n)]; return x itself where it has that shape."""
    missing = rows - x.shape[0], padded_channels(x.shape[1]) - x.shape[1]
    return functional.pad(x, (0, missing[1], 0, missing[0])) if any(missing) else x


def power_of_two(number: int) -> int:
    """Return the largest power of two up to a number, at least 1."""
    return 1 << max(0, number.bit_length() - 1)
