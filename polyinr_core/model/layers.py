"""Building blocks: StyleGAN's equalised layer and RMS normalisation, and products of repeatable bits."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
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
    "Progressive Growing of GANs" (equalised learning rate).
    """

    def __init__(self, in_dim: int, out_dim: int, *, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim).normal_().div_(lr_multiplier))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        scale = self.lr_multiplier / math.sqrt(self.weight.shape[1])
        return leaky_relu(functional.linear(x, self.weight * scale, self.bias * self.lr_multiplier)) * math.sqrt(
            2
        )


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
