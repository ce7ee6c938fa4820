"""The synthesis network in another number format, and whether its images bear it."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.models.coordinates import homogeneous
from polyinr_core.models.generator import Synthesis
from polyinr_core.runtime.rng import generator_for

POINTS = 256  # of each image that is compared
STEPS, SHARE, RELATIVE = 2.0, 0.999, 0.01


class NarrowLinear(nn.Module):
    """A product in a narrow format: its input is rounded to the weight's dtype."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().to(dtype))
        self.register_buffer("bias", linear.bias.detach().to(dtype))

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


def in_precision(synthesis: Synthesis, dtype: torch.dtype) -> Synthesis:
    """Bring the network to `dtype`: itself to float32 or float64, a copy to a narrower format.

    In bfloat16 only the n x n products are narrow. Points and affine maps stay float32: 8 bits cannot tell the
    pixels of a row apart.
    """
    if dtype in (torch.float32, torch.float64):
        return synthesis.to(dtype)
    synthesis = copy.deepcopy(synthesis)
    for level in range(1, len(synthesis.products)):
        synthesis.products[level] = NarrowLinear(synthesis.products[level], dtype)  # type: ignore[arg-type]
    return synthesis


@torch.no_grad()
def is_faithful(narrow: Synthesis, wide: Synthesis, affine: Tensor) -> bool:
    """Whether a network in a narrow format draws as it does in a wide one, by some points of a few images.

    `affine` [N, L, 3, n] is theirs. Colors may be off by 2 steps of 255 on 99.9 % of the points, and by 1 % in
    all. What is rounded early grows from level to level, so how far it is off is a matter of the weights.
    """
    scattered = torch.rand(POINTS, 2, generator=generator_for("precision", "points"))
    points = homogeneous(scattered).to(affine)
    exact, rounded = (network(affine, points).clamp(-1, 1) for network in (wide, narrow))
    off = 127.5 * (rounded - exact).abs().amax(dim=-1)  # [N, P], in steps of 255
    near = (off <= STEPS).double().mean() >= SHARE
    return bool(near and (rounded - exact).norm() <= RELATIVE * exact.norm())
