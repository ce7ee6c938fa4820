"""A level for training on a GPU: the products are cuBLAS's, all that stands between them is a Triton kernel each.

A pass over the features costs a GPU more than a product of few channels, so each kernel does all that can be done with
the numbers that it reads. In bytes a feature, with products in bfloat16: forward 12 (modulate 4, product 4, activate
4), backward 22 (activation 6, product 4, modulation 8, product for the weight 4); step by step in PyTorch it is 40 and
100. Modulations exist in registers only. Sums over pixels are made program by program and then of the programs,
in a fixed order: two runs are bit-equal.

This module imports Triton: import it only where Triton is installed.
"""

# mypy: disable-error-code="no-untyped-def,import-untyped,import-not-found,misc"
# The signatures of kernels are Triton's own: pointers, blocks and constants.

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton import language as tl

from .layers import SLOPE, add_product, level_chunks, select_coordinates

PIXELS, CHANNELS, STEPS = 32, 64, 8  # of a tile; tiles of pixels that a program sums one after another
FLAT = 1024  # numbers of a program that looks at each by itself
LAUNCH: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}  # explicit, or Triton warns


@triton.jit
def _modulation(
    coordinates, pixel, is_pixel, matrix, columns, is_column, n: tl.constexpr, is_release: tl.constexpr, slope
):
    """Return the modulation of a tile [pixels, channels], its LeakyReLU's slope, and x, y, 1 of the pixels."""
    x = tl.load(coordinates + pixel * 3, mask=is_pixel, other=0.0)
    y = tl.load(coordinates + pixel * 3 + 1, mask=is_pixel, other=0.0)
    one = tl.load(coordinates + pixel * 3 + 2, mask=is_pixel, other=0.0)
    m = x[:, None] * tl.load(matrix + columns, mask=is_column, other=0.0)[None, :]
    m += y[:, None] * tl.load(matrix + n + columns, mask=is_column, other=0.0)[None, :]
    m += one[:, None] * tl.load(matrix + 2 * n + columns, mask=is_column, other=0.0)[None, :]
    bend = tl.where(m > 0, 1.0, slope) if is_release else tl.full(m.shape, 1.0, tl.float32)
    return m * bend, bend, x, y, one


@triton.jit
def modulate_kernel(
    out,  # h * m [N, P, n]
    h,  # [N, P, n]
    matrix,  # [N, 3, n]
    coordinates,  # [P, 3], or of each image
    count,  # P
    coordinate_step,  # from image to image
    slope,
    n: tl.constexpr,
    is_release: tl.constexpr,
    pixels: tl.constexpr,
    channels: tl.constexpr,
):
    """Modulate a tile of features; the programs are (tiles of pixels, blocks of channels, images)."""
    image = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * pixels + tl.arange(0, pixels)
    columns = tl.program_id(1) * channels + tl.arange(0, channels)
    is_pixel, is_column = pixel < count, columns < n
    mine = coordinates + image * coordinate_step
    m, _, _, _, _ = _modulation(mine, pixel, is_pixel, matrix + image * 3 * n, columns, is_column, n, is_release, slope)
    place = (image * count + pixel)[:, None] * n + columns[None, :]
    is_inside = is_pixel[:, None] & is_column[None, :]
    features = tl.load(h + place, mask=is_inside, other=0.0).to(tl.float32)
    tl.store(out + place, (features * m).to(out.dtype.element_ty), mask=is_inside)


@triton.jit
def activate_kernel(x, limit, slope, total, clamped: tl.constexpr, flat: tl.constexpr):
    """LeakyReLU and clamp, in place."""
    place = tl.program_id(0).to(tl.int64) * flat + tl.arange(0, flat)
    value = tl.load(x + place, mask=place < total, other=0.0).to(tl.float32)
    value = tl.where(value > 0, value, value * slope)
    if clamped:
        # comparisons, not minimum and maximum: these would lose a NaN
        value = tl.where(value > limit, limit, tl.where(value < -limit, -limit, value))
    tl.store(x + place, value.to(x.dtype.element_ty), mask=place < total)


@triton.jit
def activation_backward_kernel(
    rows,  # the gradient before LeakyReLU and clamp [M, n]
    sums,  # of rows over the pixels of a program [programs, n]
    grad,  # that after them
    x,  # their output
    limit,
    slope,
    count,  # M
    n: tl.constexpr,
    clamped: tl.constexpr,
    pixels: tl.constexpr,
    channels: tl.constexpr,
    steps: tl.constexpr,
):
    """Go back through the activation of some tiles; the programs are (groups of tiles, blocks of channels)."""
    columns = tl.program_id(1) * channels + tl.arange(0, channels)
    is_column = columns < n
    total = tl.zeros((channels,), dtype=tl.float32)
    for step in range(steps):
        pixel = (tl.program_id(0) * steps + step).to(tl.int64) * pixels + tl.arange(0, pixels)
        place = pixel[:, None] * n + columns[None, :]
        is_inside = (pixel < count)[:, None] & is_column[None, :]
        output = tl.load(x + place, mask=is_inside, other=0.0).to(tl.float32)
        value = tl.load(grad + place, mask=is_inside, other=0.0).to(tl.float32)
        value = tl.where(output > 0, value, value * slope)
        if clamped:
            value = tl.where((output >= limit) | (output <= -limit), 0.0, value)
        rounded = value.to(rows.dtype.element_ty)
        tl.store(rows + place, rounded, mask=is_inside)
        total += tl.sum(tl.where(is_inside, rounded.to(tl.float32), 0.0), axis=0)
    tl.store(sums + tl.program_id(0) * n + columns, total, mask=is_column)


@triton.jit
def modulation_backward_kernel(
    grad_h,  # [N, P, n]
    hm,  # h * m once more, for the gradient of the weight
    sums,  # parts of the gradient of the matrix [N, programs, 3, n]
    grad_hm,
    h,
    matrix,
    coordinates,
    count,
    coordinate_step,
    slope,
    n: tl.constexpr,
    is_release: tl.constexpr,
    pixels: tl.constexpr,
    channels: tl.constexpr,
    steps: tl.constexpr,
):
    """Go back through the modulation of some tiles; the programs are (groups of tiles, blocks of channels, images)."""
    image = tl.program_id(2).to(tl.int64)
    columns = tl.program_id(1) * channels + tl.arange(0, channels)
    is_column = columns < n
    of_x = tl.zeros((channels,), dtype=tl.float32)
    of_y = tl.zeros((channels,), dtype=tl.float32)
    of_one = tl.zeros((channels,), dtype=tl.float32)
    for step in range(steps):
        pixel = (tl.program_id(0) * steps + step) * pixels + tl.arange(0, pixels)
        is_pixel = pixel < count
        mine = coordinates + image * coordinate_step
        m, bend, x, y, one = _modulation(
            mine, pixel, is_pixel, matrix + image * 3 * n, columns, is_column, n, is_release, slope
        )
        place = (image * count + pixel)[:, None] * n + columns[None, :]
        is_inside = is_pixel[:, None] & is_column[None, :]
        features = tl.load(h + place, mask=is_inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_hm + place, mask=is_inside, other=0.0).to(tl.float32)
        tl.store(grad_h + place, (grad * m).to(grad_h.dtype.element_ty), mask=is_inside)
        tl.store(hm + place, (features * m).to(hm.dtype.element_ty), mask=is_inside)
        grad_m = grad * features * bend
        of_x += tl.sum(grad_m * x[:, None], axis=0)
        of_y += tl.sum(grad_m * y[:, None], axis=0)
        of_one += tl.sum(grad_m * one[:, None], axis=0)
    place = sums + (image * tl.num_programs(0) + tl.program_id(0)) * 3 * n + columns
    tl.store(place, of_x, mask=is_column)
    tl.store(place + n, of_y, mask=is_column)
    tl.store(place + 2 * n, of_one, mask=is_column)


class FusedLevelFunction(torch.autograd.Function):
    """`LevelFunction` in these kernels: float32 affine parameters and coordinates [P, 3] or [N, P, 3], no blends."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        matrix: Tensor,
        coordinates: Tensor,
        weight: Tensor,
        bias: Tensor,
        is_release: bool,
        clamp: float | None,
        product_dtype: torch.dtype | None,
    ) -> Tensor:
        dtype = product_dtype or weight.dtype
        h, matrix, coordinates = h.contiguous(), matrix.contiguous(), coordinates.contiguous()
        product, constant, n = weight.to(dtype).T, bias.to(dtype), h.shape[2]
        x = h.new_empty(h.shape, dtype=dtype)
        with torch.cuda.device_of(h):  # Triton launches on the current one
            for images, pixels in level_chunks(h):
                features, p = h[images, pixels], select_coordinates(coordinates, images, pixels)
                if not features.numel():
                    continue
                hm = torch.empty_like(features, dtype=dtype)
                grid = (triton.cdiv(features.shape[1], PIXELS), triton.cdiv(n, CHANNELS), len(features))
                sizes = {"n": n, "is_release": is_release, "pixels": PIXELS, "channels": CHANNELS, **LAUNCH}
                step = p.stride(0) if p.dim() == 3 else 0
                modulate_kernel[grid](hm, features, matrix[images], p, features.shape[1], step, SLOPE, **sizes)
                out = x[images, pixels].view(-1, n)
                torch.addmm(constant, hm.flatten(0, 1), product, out=out)
                activate_kernel[(triton.cdiv(out.numel(), FLAT),)](
                    out, clamp or 0.0, SLOPE, out.numel(), clamped=clamp is not None, flat=FLAT, **LAUNCH
                )
        ctx.save_for_backward(h, matrix, coordinates, weight, x)
        ctx.is_release, ctx.clamp = is_release, clamp
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, matrix, coordinates, weight, x = ctx.saved_tensors
        grad, product, n = grad.contiguous(), weight.to(x.dtype), h.shape[2]
        grad_h, grad_matrix = torch.empty_like(h), torch.zeros_like(matrix)
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(weight[0])
        sizes = {"n": n, "pixels": PIXELS, "channels": CHANNELS, "steps": STEPS, **LAUNCH}
        with torch.cuda.device_of(h):
            for images, pixels in level_chunks(h):
                features, p = h[images, pixels], select_coordinates(coordinates, images, pixels)
                if not features.numel():
                    continue
                (count, each), blocks = features.shape[:2], triton.cdiv(n, CHANNELS)
                rows = torch.empty_like(features, dtype=x.dtype).flatten(0, 1)
                groups = triton.cdiv(len(rows), PIXELS * STEPS)
                sums = matrix.new_empty(groups, n)
                activation_backward_kernel[(groups, blocks)](
                    *(rows, sums, grad[images, pixels], x[images, pixels], ctx.clamp or 0.0, SLOPE, len(rows)),
                    clamped=ctx.clamp is not None,
                    **sizes,
                )
                grad_bias += sums.sum(dim=0)
                grad_hm, hm = torch.mm(rows, product), torch.empty_like(rows)
                groups = triton.cdiv(each, PIXELS * STEPS)
                sums = matrix.new_empty(count, groups, 3, n)
                step = p.stride(0) if p.dim() == 3 else 0
                modulation_backward_kernel[(groups, blocks, count)](
                    *(grad_h[images, pixels], hm, sums, grad_hm, features, matrix[images], p, each, step, SLOPE),
                    is_release=ctx.is_release,
                    **sizes,
                )
                grad_matrix[images] += sums.sum(dim=1)
                add_product(grad_weight, rows.T, hm)
        return grad_h, grad_matrix, None, grad_weight, grad_bias, None, None, None
