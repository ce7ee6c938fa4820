"""Reduced precision: a synthesis network with bfloat16 products, and whether its images are close enough."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.models.coordinates import homogeneous
from polyinr_core.models.generator import Synthesis
from polyinr_core.runtime.rng import generator_for

POINTS = 256  # of each image that are compared
MAX_STEPS, MIN_SHARE, MAX_RELATIVE = 2.0, 0.999, 0.01


class ReducedLinear(nn.Module):
    """A linear layer in reduced precision: its input is rounded to the weight's dtype."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().to(dtype))
        self.register_buffer("bias", linear.bias.detach().to(dtype))

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


def in_precision(synthesis: Synthesis, dtype: torch.dtype) -> Synthesis:
    """Convert the network to a dtype: in place to float32 or float64, as a copy to bfloat16.

    In bfloat16 only the n x n products are reduced. Coordinates and affine parameters stay float32, as 8 bits of
    mantissa do not distinguish the pixels of a row.
    """
    if dtype in (torch.float32, torch.float64):
        return synthesis.to(dtype)
    synthesis = copy.deepcopy(synthesis)
    for level in range(1, len(synthesis.products)):
        synthesis.products[level] = ReducedLinear(synthesis.products[level], dtype)  # type: ignore[arg-type]
    return synthesis


@torch.no_grad()
def is_faithful(reduced: Synthesis, exact: Synthesis, affine: Tensor) -> bool:
    """Return whether a network in reduced precision renders visually identical images, by random points of some.

    `affine` [N, L, 3, n] holds the images' parameters. Colors may be off by 2 steps of 255 on 99.9 % of the
    points, and by 1 % in norm. Rounding errors grow from level to level, so the result depends on the weights.
    """
    xy = torch.rand(POINTS, 2, generator=generator_for("precision", "points"))
    points = homogeneous(xy).to(affine)
    expected, rounded = (network(affine, points).clamp(-1, 1) for network in (exact, reduced))
    error = 127.5 * (rounded - expected).abs().amax(dim=-1)  # [N, P], in steps of 255
    is_near = (error <= MAX_STEPS).double().mean() >= MIN_SHARE
    return bool(is_near and (rounded - expected).norm() <= MAX_RELATIVE * expected.norm())
