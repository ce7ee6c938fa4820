"""The synthesis network in another number format."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from .synthesis import Synthesis


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
