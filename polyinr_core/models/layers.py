"""Building blocks: StyleGAN's equalized layer and RMS normalization, and products of repeatable bits."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

SLOPE = 0.2  # of every LeakyReLU
ALIGNMENT = 64  # bytes: where PyTorch's allocator lets every tensor begin, a cache line
CPU_ROWS, ROWS = 8, 32  # rows of every product in batch_invariant, on a CPU and elsewhere


def leaky_relu(x: Tensor) -> Tensor:
    """LeakyReLU with the slope used everywhere in Poly-INR."""
    return functional.leaky_relu(x, SLOPE)


def rms_normalize(x: Tensor) -> Tensor:
    """Divide rows by their root mean square: x / sqrt(mean(x^2) + 1e-8), [N, d] to [N, d]."""
    return x * (x.square().mean(dim=-1, keepdim=True) + 1e-8).rsqrt()


class EqualizedLinear(nn.Module):
    """y = sqrt(2) lrelu(x (W m / sqrt(in))^T + b m), with m the learning-rate multiplier.

    Weights start as N(0, 1) / m and biases as 0; the scale is applied at run time. Karras et al.,
    "Progressive Growing of GANs" (equalized learning rate).
    """

    def __init__(self, in_dim: int, out_dim: int, *, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim).normal_().div_(lr_multiplier))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        scale = self.lr_multiplier / math.sqrt(self.weight.shape[1])
        return leaky_relu(functional.linear(x, self.weight * scale, self.bias * self.lr_multiplier)) * math.sqrt(2)


class AlignedLinear(nn.Linear):
    """nn.Linear whose result does not depend on where in memory its weight lies."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, aligned(self.weight), self.bias)


def aligned(x: Tensor) -> Tensor:
    """Return x, or a copy that begins at a cache line where x does not.

    BLAS libraries order the sums of a product by the alignment of its arguments (MKL on AMD does for three rows
    and fewer), and tensors from a file, or views, may begin anywhere.
    """
    if x.device.type != "cpu" or (x.is_contiguous() and x.data_ptr() % ALIGNMENT == 0):
        return x
    return x.clone(memory_format=torch.contiguous_format)


@torch.no_grad()
def batch_invariant(function: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """Return function(*inputs) of inputs [N, ...] that it maps row by row, in products of one fixed shape.

    How a BLAS library orders a product's sums depends on the number of rows. So on a CPU each row is mapped
    alone, repeated to 8 rows in new memory: its result is the same to the last bit whatever is mapped beside it.
    A GPU maps 32 rows at a time, the last ones repeated to 32.
    """
    first = next(x for x in inputs if x is not None)
    count, together, rows = len(first), *((1, CPU_ROWS) if first.device.type == "cpu" else (ROWS, ROWS))
    if not count:
        return function(*inputs)
    results = []
    for start in range(0, count, together):
        own = start + torch.arange(rows, device=first.device) % min(together, count - start)
        mapped = function(*(None if x is None else x[own] for x in inputs))
        results.append(mapped[: min(together, count - start)])
    return torch.cat(results)


hardtanh_backward = torch.ops.aten.hardtanh_backward
leaky_relu_backward = torch.ops.aten.leaky_relu_backward

BLOCK = 2**18  # features at work at a time: with what they meet, they fit into a core's second cache
TRACE_BYTES = 5  # kept for the backward pass by a channel of a level of a pixel: one float32, and some


class Level(torch.autograd.Function):
    """x = clamp(lrelu(U (h * m) + u)), [N, P, n], with m = lrelu(A p), or A p itself unless `bent`.

    h is [N, P, n], A [N, 3, n], p [P, 3] or [N, P, 3]; without a `limit` nothing is clamped; the product, and so
    x, is in the format `kind` (None: that of the weights). LeakyReLU keeps the sign, so its own result tells its
    slope, and what is clamped sits at the limit: with m drawn again, the backward pass needs h and x alone, and
    h is the x of the level before.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        matrix: Tensor,
        points: Tensor,
        weight: Tensor,
        bias: Tensor,
        bent: bool,
        limit: float | None,
        kind: torch.dtype | None,
    ) -> Tensor:
        kind = kind or weight.dtype
        product, constant = weight.to(kind).T, bias.to(kind)
        x = h.new_empty(h.shape, dtype=kind)
        (room,) = rooms(h, matrix.dtype)
        for images, pixels in blocks(h):
            own, place = h[images, pixels], points_of(points, images, pixels)
            hm = modulate(matrix[images], place, bent, out=part(room, own)).mul_(own)
            out = x[images, pixels].view(-1, h.shape[2])
            torch.addmm(constant, hm.flatten(0, 1).to(kind), product, out=out)
            functional.leaky_relu_(out, SLOPE)
            if limit is not None:
                out.clamp_(-limit, limit)
        ctx.save_for_backward(h, matrix, points, weight, x)
        ctx.bent, ctx.limit = bent, limit
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, matrix, points, weight, x = ctx.saved_tensors
        at_h, narrow = torch.empty_like(h), weight.to(x.dtype)
        at_matrix, at_points, at_weight, at_bias = (
            torch.zeros_like(tensor) if wanted else None
            for tensor, wanted in zip((matrix, points, weight, weight[0]), ctx.needs_input_grad[1:5], strict=True)
        )
        room_m, room_hm, room_at_m = rooms(h, matrix.dtype, 3)
        (room_x,) = rooms(h, x.dtype)
        for images, pixels in blocks(h):
            own, place = h[images, pixels], points_of(points, images, pixels)
            rows = before_activation(grad[images, pixels], x[images, pixels], ctx.limit, out=part(room_x, own)).flatten(
                0, 1
            )
            m = modulate(matrix[images], place, ctx.bent, out=part(room_m, own))
            if at_weight is not None:
                hm = torch.mul(m, own, out=part(room_hm, own)).flatten(0, 1)
                add_product(at_weight, rows.T, hm.to(rows.dtype))
            if at_bias is not None:
                at_bias += rows.sum(dim=0)
            at_hm = part(room_hm, own)
            if narrow.dtype == m.dtype:
                torch.mm(rows, narrow, out=at_hm.flatten(0, 1))
            else:
                at_hm.copy_(torch.mm(rows, narrow).view_as(own))
            at_m = torch.mul(at_hm, own, out=part(room_at_m, own))
            if ctx.bent:
                leaky_relu_backward.grad_input(at_m, m, SLOPE, True, grad_input=at_m)
            if at_matrix is not None:
                at_matrix[images] += torch.matmul(place.mT, at_m)
            if at_points is not None:
                at_place = torch.matmul(at_m, matrix[images].mT)
                points_of(at_points, images, pixels).add_(at_place if points.dim() == 3 else at_place.sum(dim=0))
            if at_h.dtype == m.dtype:
                torch.mul(at_hm, m, out=at_h[images, pixels])
            else:
                at_h[images, pixels] = at_hm.mul_(m)
        return at_h, at_matrix, at_points, at_weight, at_bias, None, None, None


def modulate(matrix: Tensor, points: Tensor, bent: bool, *, out: Tensor) -> Tensor:
    """Return in `out` what the features of some images' points are multiplied with, [k, p, n]."""
    m = torch.matmul(points, matrix, out=out)
    return functional.leaky_relu_(m, SLOPE) if bent else m


def before_activation(grad: Tensor, x: Tensor, limit: float | None, *, out: Tensor) -> Tensor:
    """Return in `out` the gradient before LeakyReLU and clamp, from that behind them, where x is."""
    if limit is not None:
        grad = hardtanh_backward.grad_input(grad, x, -limit, limit, grad_input=out)
    return leaky_relu_backward.grad_input(grad, x, SLOPE, True, grad_input=out)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to `total`, which may be of a wider format."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def rooms(h: Tensor, kind: torch.dtype, count: int = 1) -> Tensor:
    """Return room for `count` times what a block of h works on: memory that is new to a program costs as much as
    a pass over it."""
    return h.new_empty(count, min(block_of(h) * h.shape[2], h.numel()), dtype=kind)


def part(room: Tensor, own: Tensor) -> Tensor:
    """Return room for what is as large as `own`."""
    return room[: own.numel()].view(own.shape)


def block_of(h: Tensor) -> int:
    """Return how many pixels of features [N, P, n] are worked on at a time: elsewhere than on a processor all."""
    return max(1, BLOCK // h.shape[2] if h.device.type == "cpu" else h.shape[0] * h.shape[1])


def blocks(h: Tensor) -> Iterator[tuple[slice, slice]]:
    """Cut features [N, P, n] into blocks."""
    return pieces(h.shape[0], h.shape[1], block_of(h))


def pieces(images: int, pixels: int, chunk: int) -> Iterator[tuple[slice, slice]]:
    """Cut images of so many pixels into pieces of at most `chunk`: whole images, or parts of one."""
    together = max(1, chunk // max(1, pixels))
    for first in range(0, images, together):
        for start in range(0, pixels, chunk):
            yield slice(first, first + together), slice(start, start + chunk)


def points_of(points: Tensor, images: slice, pixels: slice) -> Tensor:
    """Return the points of a piece, from points [P, 3] of every image or [N, P, 3] of each."""
    return points[pixels] if points.dim() == 2 else points[images, pixels]
