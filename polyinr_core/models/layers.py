"""Layers: equalized linear layer, RMS normalization, bit-identical products, and a level with its gradient."""

import logging
import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from polyinr_core.runtime.device import is_bfloat16_gpu

SLOPE = 0.2  # of every LeakyReLU
ALIGNMENT = 64  # bytes, a cache line, to which PyTorch's allocator aligns tensors
CPU_ROWS, ROWS = 8, 32  # rows of every product in batch_invariant, on a CPU and elsewhere
CHUNK_FEATURES = 2**18  # per chunk of a level on a CPU, so that its buffers fit a core's second-level cache
GPU_CHUNK_FEATURES = 2**25  # on a GPU: enough to fill it, in buffers of at most 128 MiB
SAVED_BYTES = 5  # saved for the backward pass per pixel, level and channel: one float32, and some

logger = logging.getLogger(__name__)
hardtanh_backward = torch.ops.aten.hardtanh_backward
leaky_relu_backward = torch.ops.aten.leaky_relu_backward


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
    """nn.Linear whose result does not depend on the memory address of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, aligned(self.weight), self.bias)


def aligned(x: Tensor) -> Tensor:
    """Return x if it is aligned to a cache line, else a copy that is.

    The order of the sums in a BLAS product may depend on the alignment of its arguments (in MKL on AMD for three rows
    and fewer); tensors read from a file, and views, may have any. A tensor that torch.export traces has no address.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or (x.is_contiguous() and x.data_ptr() % ALIGNMENT == 0):
        return x
    return x.clone(memory_format=torch.contiguous_format)


@torch.no_grad()
def batch_invariant(function: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """Return function(*inputs) of inputs [N, ...], a function of each row, in products of one fixed shape.

    The order of the sums in a BLAS product depends on the number of rows. So a CPU maps each row alone, repeated to 8
    rows in new memory: its result is bit-identical whatever the batch. A GPU maps 32 rows at a time, the last ones
    repeated to 32.
    """
    first = next(x for x in inputs if x is not None)
    count, step, rows = len(first), *((1, CPU_ROWS) if first.device.type == "cpu" else (ROWS, ROWS))
    if not count:
        return function(*inputs)
    results = []
    for start in range(0, count, step):
        index = start + torch.arange(rows, device=first.device) % min(step, count - start)
        mapped = function(*(None if x is None else x[index] for x in inputs))
        results.append(mapped[: min(step, count - start)])
    return torch.cat(results)


class LevelFunction(torch.autograd.Function):
    """x = clamp(lrelu(U (h * m) + u)), [N, P, n], with m = lrelu(A p) in the release's form and A p in the paper's.

    h is [N, P, n], A [N, 3, n], p [P, 3] or [N, P, 3]; `clamp` None does not clamp; the product, and so x, has
    `product_dtype` (None: that of the weights). LeakyReLU keeps the sign, so its output determines its slope, and
    clamped values equal the clamp: with m recomputed, the backward pass needs h and x alone, and h is the x of the
    level before. Both passes work in chunks of pixels, whose buffers stay in the cache. Coordinates get no gradient.
    """

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
        product, constant = weight.to(dtype).T, bias.to(dtype)
        x = h.new_empty(h.shape, dtype=dtype)
        (workspace,) = workspaces(h, matrix.dtype)
        for images, pixels in level_chunks(h):
            features = h[images, pixels]
            p = select_coordinates(coordinates, images, pixels)
            hm = modulation(matrix[images], p, is_release, out=view_like(workspace, features)).mul_(features)
            out = x[images, pixels].view(-1, h.shape[2])
            torch.addmm(constant, hm.flatten(0, 1).to(dtype), product, out=out)
            functional.leaky_relu_(out, SLOPE)
            if clamp is not None:
                out.clamp_(-clamp, clamp)
        ctx.save_for_backward(h, matrix, coordinates, weight, x)
        ctx.is_release, ctx.clamp = is_release, clamp
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, matrix, coordinates, weight, x = ctx.saved_tensors
        product, grad_h = weight.to(x.dtype), torch.empty_like(h)
        grad_matrix, grad_weight, grad_bias = (
            torch.zeros_like(tensor) if ctx.needs_input_grad[index] else None
            for index, tensor in ((1, matrix), (3, weight), (4, weight[0]))
        )
        m_space, hm_space, grad_m_space = workspaces(h, matrix.dtype, 3)
        (x_space,) = workspaces(h, x.dtype)
        for images, pixels in level_chunks(h):
            features = h[images, pixels]
            p = select_coordinates(coordinates, images, pixels)
            out = view_like(x_space, features)
            rows = activation_backward(grad[images, pixels], x[images, pixels], ctx.clamp, out=out).flatten(0, 1)
            m = modulation(matrix[images], p, ctx.is_release, out=view_like(m_space, features))
            if grad_weight is not None:
                hm = torch.mul(m, features, out=view_like(hm_space, features)).flatten(0, 1)
                add_product(grad_weight, rows.T, hm.to(rows.dtype))
            if grad_bias is not None:
                grad_bias += rows.sum(dim=0)
            grad_hm = view_like(hm_space, features)
            if product.dtype == m.dtype:
                torch.mm(rows, product, out=grad_hm.flatten(0, 1))
            else:
                grad_hm.copy_(torch.mm(rows, product).view_as(features))
            if grad_matrix is not None:
                grad_m = torch.mul(grad_hm, features, out=view_like(grad_m_space, features))
                if ctx.is_release:
                    leaky_relu_backward.grad_input(grad_m, m, SLOPE, True, grad_input=grad_m)
                grad_matrix[images] += torch.matmul(p.mT, grad_m)
            if grad_h.dtype == m.dtype:
                torch.mul(grad_hm, m, out=grad_h[images, pixels])
            else:
                grad_h[images, pixels] = grad_hm.mul_(m)
        return grad_h, grad_matrix, None, grad_weight, grad_bias, None, None, None


Level = type[torch.autograd.Function]
FASTEST: dict[tuple[Any, ...], Level] = {}  # by what `select_level` looks at; found at the first use in a process
COMPARED = 3 * 97  # pixels: more than one tile, and not a multiple of it
MAX_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}  # of the norm; signs that rounding changes count


def select_level(h: Tensor, matrix: Tensor, weight: Tensor, *options: Any) -> Level:
    """Return the fastest of the functions that compute a level; `options` are the last three of LevelFunction.

    On a GPU Triton kernels, once they have given the results of LevelFunction on random features; with another result,
    or an error, that is logged and LevelFunction stays.
    """
    if h.device.type != "cuda" or matrix.shape[1] != 3 or matrix.dtype != torch.float32:
        return LevelFunction
    dtype = options[2] or weight.dtype
    key = (h.device, h.dtype, h.shape[2], dtype, *options[:2])
    if key not in FASTEST:
        has_kernels = is_bfloat16_gpu(h.device) and find_spec("triton") is not None
        if has_kernels and dtype in MAX_DIFFERENCE:
            FASTEST[key] = faster_level(h, matrix, options)
        else:
            FASTEST[key] = LevelFunction
    return FASTEST[key]


def faster_level(h: Tensor, matrix: Tensor, options: tuple[Any, ...]) -> Level:
    """Return the function in Triton kernels if it agrees with LevelFunction, else that."""
    n, rng = h.shape[2], torch.Generator().manual_seed(0)
    shapes = ((1, COMPARED, n), (1, 3, n), (COMPARED, 3), (n, n), (n,), (1, COMPARED, n))
    made = [torch.randn(shape, generator=rng).to(h.device) for shape in shapes]
    inputs = [made[0].to(h.dtype), *made[1:3], made[3] / n**0.5, made[4]]
    results = []
    try:
        from .level_triton import FusedLevelFunction

        logger.info("Triton: compiling kernels for training on %s", h.device)
        for function in (LevelFunction, FusedLevelFunction):
            leaves = [tensor.detach().requires_grad_(index != 2) for index, tensor in enumerate(inputs)]
            with torch.enable_grad():
                x = function.apply(*leaves, *options)
            learned = [leaf for leaf in leaves if leaf.requires_grad]
            results.append([x.detach(), *torch.autograd.grad(x, learned, made[5].to(x.dtype))])
        off = max(float((a - b).float().norm() / b.float().norm()) for b, a in zip(*results, strict=True))
        if off <= MAX_DIFFERENCE[results[0][0].dtype]:
            return FusedLevelFunction
        reason = f"results differ by {off:.2g} of their norm"
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # compilers have no common base class of errors
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
    logger.warning("Triton does not work here (%s); training continues without it", reason)
    return LevelFunction


def modulation(matrix: Tensor, coordinates: Tensor, is_release: bool, *, out: Tensor) -> Tensor:
    """Return in `out` the factors [k, p, n] of a chunk's features."""
    m = torch.matmul(coordinates, matrix, out=out)
    return functional.leaky_relu_(m, SLOPE) if is_release else m


def activation_backward(grad: Tensor, x: Tensor, clamp: float | None, *, out: Tensor) -> Tensor:
    """Return in `out` the gradient before LeakyReLU and clamp, from that after them and their output x."""
    if clamp is not None:
        grad = hardtanh_backward.grad_input(grad, x, -clamp, clamp, grad_input=out)
    return leaky_relu_backward.grad_input(grad, x, SLOPE, True, grad_input=out)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to `total`, which may have a wider dtype."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def workspaces(h: Tensor, dtype: torch.dtype, count: int = 1) -> Tensor:
    """Return `count` flat buffers, each for a chunk of h; reused, as the first touch of memory costs a pass over it."""
    return h.new_empty(count, min(level_chunk_pixels(h) * h.shape[2], h.numel()), dtype=dtype)


def view_like(workspace: Tensor, features: Tensor) -> Tensor:
    """Return the beginning of a flat buffer as a tensor of the shape of `features`."""
    return workspace[: features.numel()].view(features.shape)


def level_chunk_pixels(h: Tensor) -> int:
    """Return the pixels of features [N, P, n] per chunk of a level."""
    return max(1, (CHUNK_FEATURES if h.device.type == "cpu" else GPU_CHUNK_FEATURES) // h.shape[2])


def level_chunks(h: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield the slices of images and pixels of each chunk of features [N, P, n]."""
    return chunk_slices(h.shape[0], h.shape[1], level_chunk_pixels(h))


def chunk_slices(images: int, pixels: int, chunk: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of images and of their pixels, at most `chunk` pixels each: whole images, or a part of one."""
    step = max(1, chunk // max(1, pixels))
    for first in range(0, images, step):
        for start in range(0, pixels, chunk):
            yield slice(first, first + step), slice(start, start + chunk)


def select_coordinates(coordinates: Tensor, images: slice, pixels: slice) -> Tensor:
    """Return a chunk's coordinates, from [P, 3] of all images or [N, P, 3] of each."""
    return coordinates[pixels] if coordinates.dim() == 2 else coordinates[images, pixels]
